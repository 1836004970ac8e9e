"""Characters that act instead of showing: logs and terminals escape them, and no id has any.

The direction of text is from Unicode's Bidi_Control (UAX #9); a terminal or editor that obeys it
shows words in another order than they have (CVE-2021-42574).
"""

from __future__ import annotations

import re
import unicodedata

# C0 and C1 controls, line and paragraph separators, marks and overrides of text direction, the byte
# order mark, lone surrogates.
_ACTING = "\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff"
_UNSAFE = re.compile(f"[{_ACTING}]")
_UNSAFE_IN_LINES = re.compile(f"(?!\n)[{_ACTING}]")

_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zs", "Zl", "Zp", "Mn", "Me"})
"""Categories of which nothing is seen without another character."""

_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")
"""Letters and symbols that are empty: fillers of Hangul, the Braille pattern without dots."""


def escape(text: str) -> str:
    r"""Return the text as one line that shows all it has: `\x9b` for what would act."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def escape_lines(text: str) -> str:
    """Do as `escape` does with each line."""
    return _UNSAFE_IN_LINES.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def escape_json(text: str) -> str:
    r"""Return JSON that means the same, with what would act as `\u009b`."""
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def find_unsafe(text: str) -> str | None:
    """Return the first character that would act."""
    found = _UNSAFE.search(text)
    return None if found is None else found[0]


def is_visible(text: str) -> bool:
    """Tell whether anything of the text is seen."""
    return any(
        unicodedata.category(character) not in _INVISIBLE and character not in _BLANK
        for character in text
    )
