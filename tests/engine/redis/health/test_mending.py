"""What mends a refusal stands behind it, of all that Redis may refuse for a while."""

from __future__ import annotations

import pytest

from pov_rt.engine.redis.client.link import REFUSED, TEMPORARY
from pov_rt.engine.redis.health.mending import MENDS, mended


@pytest.mark.parametrize("code", sorted(REFUSED | TEMPORARY))
def test_each_refusal_has_what_mends_it(code: str) -> None:
    text = f"Redis at there refuses us: {code} words of its own"
    assert mended(text) == f"{text}. To mend it: {MENDS[code]}"


def test_what_is_not_known_is_said_as_it_is() -> None:
    assert mended("something else") == "something else"
