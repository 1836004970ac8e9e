"""Which ids are good ones."""

from __future__ import annotations

import pytest

from pov_rt.protocol.errors import InvalidId
from pov_rt.protocol.messages import check_id


@pytest.mark.parametrize(
    "text", ["a", "x" * 128, "a b", "**", "Zoë 🦄", "عربي", "e\u0301", "\u2028", "\u202e", "/"]
)
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
    ],
)
def test_what_breaks_lines_or_encoders_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(InvalidId, match=f"^povId .*{words}") as raised:
        check_id(text, "povId")
    assert raised.value.field == "povId"
