"""Which ids are good ones."""

from __future__ import annotations

import pytest

from pov_rt.protocol.errors import InvalidId
from pov_rt.protocol.messages import check_id

BIDI = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Unicode's Bidi_Control."""


@pytest.mark.parametrize(
    "text",
    [
        *("a", "x" * 128, "a b", " a", "**", "/", "constructor", "prototype"),
        *("Zoë 🦄", "عربي", "e\u0301", "\u0645\u06cc\u200c\u062e", "क्\u200dष"),
        *("👩\u200d👩\u200d👧", "❤\ufe0f", "🏴\U000e0067\U000e0062\U000e007f"),
    ],
)  # fmt: skip
def test_any_script_makes_a_good_id(text: str) -> None:
    check_id(text, "povId")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "1 to 128 characters"),
        ("é" * 129, "1 to 128 characters"),
        ("*", "reserved"),
        ("a\nb", r"U\+000A"),
        ("\x7f", r"U\+007F"),
        ("é\x85", r"U\+0085"),
        ("a\ud800", r"U\+D800"),
        ("ab\u2028", r"U\+2028"),
        *((f"a{character}b", rf"U\+{ord(character):04X}") for character in BIDI),
        *((f"{character}b", rf"U\+{ord(character):04X}") for character in BIDI),
        (" ", "nobody sees"),
        ("\u200d", "nobody sees"),
        ("\u200b\u2060 \u00ad", "nobody sees"),
        ("\u3164\u2800", "nobody sees"),
        ("\u034f\ufe0f", "nobody sees"),
        ("__proto__", "reserved"),
    ],
)
def test_what_breaks_lines_or_encoders_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(InvalidId, match=f"^povId .*{words}") as raised:
        check_id(text, "povId")
    assert raised.value.field == "povId"
