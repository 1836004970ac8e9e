"""One text for many that are alike, such as the id of a PoV in each of its subscribers' tokens."""

from __future__ import annotations

from functools import lru_cache


@lru_cache(maxsize=4096)
def shared(text: str) -> str:
    """Return the text that was given here first, if it was of late, else this one.

    Python's own way, `sys.intern`, keeps some texts for ever in its version 3.12.
    """
    return text
