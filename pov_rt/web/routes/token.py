"""The token endpoint: an app's access token becomes a short-lived socket token."""

from __future__ import annotations

from collections.abc import Iterable

from tornado.httputil import parse_cookie

from pov_rt.auth.grants import Kind
from pov_rt.protocol.bodies import SocketToken
from pov_rt.protocol.errors import RateLimited, TokenError
from pov_rt.runtime.limits import KeyedBuckets
from pov_rt.web.http import JsonHandler, bearer

ACCESS = frozenset({Kind.ACCESS})
EXCHANGE = 2.0
"""The price of a token."""
MAX_COOKIES = 4
"""Cookies of the name that are looked at: each may cost a signature."""


class TokenHandler(JsonHandler):
    """`GET /api/auth/ws-token`."""

    CORS_METHODS = "GET"

    buckets: KeyedBuckets

    def authorize(self) -> None:
        """Ask for an access token: the cookie's or, first, the header's."""
        if self.caller.key is not None:
            wait = self.buckets.take(self.caller.key, self.server.clock.monotonic())
            if wait:
                raise RateLimited("Too many token requests", retry_after_s=wait)
        token = bearer(self.request)
        if token is None:
            self._verify_cookie()
        else:
            self.verify(token, ACCESS)
        self.pay(EXCHANGE)

    def get(self) -> None:
        """Answer `{token}`."""
        self.answer(SocketToken(token=self.server.tokens.exchange(self.identity)))

    def _verify_cookie(self) -> None:
        """Take the first good token of the cookies of that name.

        A browser sends one for each domain and path that set it, a parent domain's forgotten one
        too. If none is good, the refusal of one that was once says most: sign in again.
        """
        name = self.server.settings.auth.cookie
        tokens = cookies(self.request.headers.get_list("Cookie"), name)
        refusals = []
        for token in tokens[:MAX_COOKIES]:
            try:
                self.verify(token, ACCESS)
            except TokenError as refusal:
                refusals.append(refusal)
            else:
                return
        if refusals:
            raise next((each for each in refusals if each.code != TokenError.code), refusals[0])
        raise TokenError(
            f"Send the app's access token: cookie '{name}' or Authorization: Bearer ..."
        ) from ValueError("no token")


def cookies(headers: Iterable[str], name: str) -> list[str]:
    """Return the values of all cookies of a name, in the order sent, each once."""
    pairs = (pair for header in headers for pair in header.split(";"))
    values = (parse_cookie(pair).get(name) for pair in pairs)
    return list(dict.fromkeys(value for value in values if value))
