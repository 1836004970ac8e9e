"""What errors and close codes tell a client to do."""

from __future__ import annotations

import json

from pov_rt.protocol.encoding import http_error
from pov_rt.protocol.errors import RateLimited


def test_a_wait_is_rounded_up_so_that_nobody_comes_back_too_early() -> None:
    for wait_s, said in ((1.23401, 1.235), (0.00001, 0.001), (2.0, 2.0)):
        assert (
            json.loads(http_error(RateLimited(retry_after_s=wait_s)))["error"]["retryAfter"] == said
        )
