"""What a character can do to a line, a terminal or a reader, and what is left of it."""

from __future__ import annotations

import json
import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from pov_rt.protocol.characters import escape, escape_json, escape_lines, find_unsafe, is_visible

ALL = st.text(st.characters())


def test_all_that_acts_is_known() -> None:
    """By Unicode's own properties: controls, separators of lines, direction, half characters."""
    acting = {
        character
        for character in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp")
        or unicodedata.bidirectional(character)
        in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    } | {"\u061c", "\u200e", "\u200f", "\ufeff"}
    assert {each for each in map(chr, range(sys.maxunicode + 1)) if find_unsafe(each)} == acting


@given(ALL)
def test_what_is_escaped_acts_no_more_and_says_what_it_was(text: str) -> None:
    assert find_unsafe(escape(text)) is None
    assert find_unsafe(escape_lines(text).replace("\n", "")) is None
    assert escape_lines(text).count("\n") == text.count("\n")
    if find_unsafe(text) is None:
        assert escape(text) == escape_lines(text) == text
    encoded = escape_json(json.dumps(text, ensure_ascii=False))
    assert find_unsafe(encoded) is None
    assert json.loads(encoded) == json.loads(json.dumps(text))


def test_some_are_seen_by_what_stands_beside_them() -> None:
    assert not any(map(is_visible, ("", " ", "\u200b", "\u0301", "\ufe0f", "\u3164", "\u2800")))
    assert all(map(is_visible, ("a", " a", "e\u0301", "❤\ufe0f", "ㅎ", "⠁", "\u0903")))
