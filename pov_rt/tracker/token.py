"""Service tokens for the tracker, signed by the application itself.

tracker = ActivityTracker(url, ServiceToken(secret, "my-app"), rules)
"""

from __future__ import annotations

import base64
import hmac
from typing import Literal

import msgspec

from pov_rt.runtime.clock import Clock, SystemClock

MIN_SECRET_BYTES = 32
"""RFC 7518, section 3.2; the server takes no shorter one."""


class ServiceToken:
    """Returns a token of the service `user` for `povs`, a new one before the last one ends.

    `secret` is one of the server's (`auth.secrets`, `auth.secret_files`); a newline at its end, as
    files have, is no part of it. With `auth.tenants` the activities are `team`'s. Raises ValueError
    for a secret that the server would not take.
    """

    def __init__(
        self,
        secret: str | bytes,
        user: str,
        *,
        povs: list[str] | Literal["*"] = "*",
        team: str | None = None,
        ttl_s: float = 300.0,
        clock: Clock | None = None,
    ) -> None:
        key = secret if isinstance(secret, bytes) else secret.encode("utf-8", "surrogateescape")
        self._key = key.removesuffix(b"\n").removesuffix(b"\r")
        if len(self._key) < MIN_SECRET_BYTES:
            raise ValueError(f"a secret of {len(self._key)} bytes, of at least {MIN_SECRET_BYTES}")
        self._claims = {"aud": "pov-rt.service", "userId": user, "povs": povs}
        if team is not None:
            self._claims["teamId"] = team
        self._ttl_s = ttl_s
        self._clock = clock or SystemClock()
        self._token, self._made_at = "", 0.0

    def __repr__(self) -> str:
        """Return who it is for, without the secret."""
        return f"ServiceToken(user={self._claims['userId']!r})"

    def __call__(self) -> str:
        """Return a token of which more than half of its time is left."""
        now = self._clock.time()
        # A clock that was set back made one that is issued in the future.
        if not self._token or not 0 <= now - self._made_at < self._ttl_s / 2:
            self._token, self._made_at = self._sign(now), now
        return self._token

    def _sign(self, now: float) -> str:
        claims = self._claims | {"iat": int(now), "exp": int(now + self._ttl_s) + 1}
        parts = [_encode(msgspec.json.encode(each)) for each in ({"alg": "HS256"}, claims)]
        text = b".".join(parts)
        return b".".join([text, _encode(hmac.digest(self._key, text, "sha256"))]).decode()


def _encode(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
