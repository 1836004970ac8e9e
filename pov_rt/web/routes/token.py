"""The token endpoint: an app's access token becomes a short-lived socket token."""

from __future__ import annotations

from tornado.httputil import parse_cookie

from pov_rt.auth.grants import Kind
from pov_rt.protocol.bodies import SocketToken
from pov_rt.protocol.errors import RateLimited, TokenError
from pov_rt.runtime.limits import KeyedBuckets
from pov_rt.web.http import JsonHandler, bearer

ACCESS = frozenset({Kind.ACCESS})
EXCHANGE = 2.0
"""The price of a token."""


class TokenHandler(JsonHandler):
    """`GET /api/auth/ws-token`."""

    CORS_METHODS = "GET"

    buckets: KeyedBuckets

    def authorize(self) -> None:
        """Ask for an access token: the cookie's or, first, the header's."""
        if self.ip_key is not None:
            wait = self.buckets.take(self.ip_key, self.server.clock.monotonic())
            if wait:
                raise RateLimited("Too many token requests", retry_after_s=wait)
        self.verify(bearer(self.request) or self._cookie_token(), ACCESS)
        self.pay(EXCHANGE)

    def get(self) -> None:
        """Answer `{token}`."""
        self.answer(SocketToken(token=self.server.tokens.exchange(self.identity)))

    def _cookie_token(self) -> str:
        name = self.server.settings.auth.cookie
        token = parse_cookie(self.request.headers.get("Cookie", "")).get(name)
        if not token:
            raise TokenError(
                f"Send the app's access token: cookie '{name}' or Authorization: Bearer ..."
            ) from ValueError("no token")
        return token
