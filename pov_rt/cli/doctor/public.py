"""What clients meet: TLS, the proxy in front and what it passes on, by the public URL."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from typing import NamedTuple

from pov_rt.cli.doctor.findings import Check, Finding, bad, doubt, ok, skipped
from pov_rt.cli.doctor.probe import PING, SUBPROTOCOL, Answer, Gone, Public
from pov_rt.config.settings import Settings
from pov_rt.runtime.clock import rfc3339
from pov_rt.web.addresses import is_trusted

POV = "pov-rt-doctor"
FORGED = "192.0.2.77"
"""An address that nobody has (RFC 5737), which a client claims as its own."""
STRANGER = "https://doctor.invalid"
"""An origin that is nobody's (RFC 2606)."""
FIRST_EVENT_S = 10.0
LATE_S = 10.0
LONG_TOKEN = 12_000
"""An access token with its user's groups is as long."""
SOON_S = 14 * 86400.0

UPGRADE = (
    "have the proxy pass on the headers Upgrade and Connection, by HTTP/1.1",
    "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; "
    'proxy_set_header Connection "Upgrade";',
)
HOST = ("have the proxy pass on the header Host", "proxy_set_header Host $http_host;")
ADDRESS = (
    "have the proxy write the header (HAProxy: http-request set-header X-Forwarded-For %[src])",
    "proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;",
)
IDLE = (
    "have the proxy wait for longer than that (HAProxy: timeout tunnel 60s)",
    "proxy_read_timeout 60s; proxy_send_timeout 60s;",
)
BUFFERING = (
    "have the proxy pass on what comes at once, without gathering it",
    "proxy_buffering off;",
)
BODY = (
    "have the proxy let bodies pass that are a little larger than limits.publish_bytes",
    "client_max_body_size 5m;",
)
HEAD = (
    "have the proxy take heads of 32 KiB (HAProxy: tune.bufsize 33792)",
    "large_client_header_buffers 4 32k;",
)
EXPOSED = (
    "have the proxy lead to server.port alone, and not to server.admin_port",
    "proxy_pass http://127.0.0.1:8765; and nothing to the admin port",
)
"""How each is mended: in any proxy, and in nginx."""


class Seen(NamedTuple):
    """What the server knows of the doctor's own connection."""

    remote_ip: str


class Doctor:
    """Asks by the public URL. `token` makes socket (False) and service tokens (True).

    `look_up` says what the server knows of a connection by its id; None where it cannot be asked.
    """

    def __init__(
        self,
        public: Public,
        settings: Settings,
        token: Callable[[bool], str],
        look_up: Callable[[str], Seen | None],
        now: Callable[[], float],
        *,
        quick: bool = False,
    ) -> None:
        self._public = public
        self._settings = settings
        self._token = token
        self._look_up = look_up
        self._now = now
        self._quick = quick
        self._proxy = ""

    def checks(self) -> Iterator[Check]:
        """Yield what is checked. Where pov-rt is not reached, that alone."""
        yield Check("reached", self.reach)
        if self.is_reached:
            yield Check("certificate", self.certificate)
            yield Check("upgrade", self.upgrade)
            if self.is_open:
                yield Check("origin", self.origin)
            if self._settings.streams.enabled:
                yield Check("buffering", self.buffering)
            yield Check("body size", self.body)
            yield Check("head size", self.head)
            yield Check("admin port", self.exposed)

    is_reached = False
    """Whether pov-rt answers there."""
    is_open = False
    """Whether a socket opens there."""

    def reach(self) -> Iterator[Finding]:
        """Look whether pov-rt answers there at all, for this host."""
        name = "reached"
        try:
            answer = self._public.ask("GET", "/ws/")
        except ssl.SSLError as error:
            what = f"no client can trust {self._public.origin}: {error.reason or error}"
            mend = f"its certificate has to be for {self._public.host}, with its whole chain"
            yield bad(name, what, mend)
            return
        except OSError as error:
            what = f"nothing answers at {self._public.origin}: {error.strerror or error}"
            yield bad(name, what, "have a proxy listen there, or mend server.public_url")
            return
        self._proxy = answer.headers.get("server", "").partition("/")[0].lower()
        if answer.code == "host_unknown":
            what = f"the server does not know the host that it is asked for as {self._public.host}"
            mend = f'{self._mend(HOST)}\nserver.allowed_hosts = ["{self._public.host}"]'
            yield bad(name, what, mend)
        elif answer.status in (502, 503, 504) and answer.code is None:
            what = f"the proxy at {self._public.origin} does not reach the server ({answer.status})"
            yield bad(name, what, "have it lead to server.host and server.port, and the server run")
        elif answer.code is None:
            what = f"something else answers at {self._public.origin} (status {answer.status})"
            yield bad(name, what, "have the proxy pass on /ws/, /api/ and /client/ to the server")
        else:
            self.is_reached = True
            yield ok(name, f"pov-rt answers at {self._public.origin}")

    def certificate(self) -> Iterator[Finding]:
        """Look for one that ends soon, and for no TLS at all."""
        name = "certificate"
        if not self._public.is_tls:
            what = "the public URL has no TLS: tokens can be read on the way"
            yield doubt(name, what, "have the proxy speak https, and set server.public_url")
            return
        with self._public.open() as line:
            ends_at = ssl.cert_time_to_seconds(str(line.certificate["notAfter"]))
        if ends_at - self._now() < SOON_S:
            yield doubt(name, f"it ends at {rfc3339(ends_at)}", "renew it")
        else:
            yield ok(name, f"it is good until {rfc3339(ends_at)}")

    def upgrade(self) -> Iterator[Finding]:
        """Open a socket; look at what the server knows of it, and whether it stays open."""
        name, claims = "upgrade", ("X-Forwarded-For", "X-Real-IP")
        with self._public.open() as line:
            answer = self._public.upgrade(line, self._token(False), dict.fromkeys(claims, FORGED))
            if answer.status != 101:
                yield self._no_upgrade(answer)
                return
            if answer.headers.get("sec-websocket-protocol") != SUBPROTOCOL:
                what = "the proxy loses the subprotocol, without which browsers drop the socket"
                mend = "have the proxy pass on the header Sec-WebSocket-Protocol, both ways"
                yield bad(name, what, mend)
                return
            self.is_open = True
            frames = line.frames()
            _, welcome = next(frames)
            yield ok(name, "a WebSocket opens, with its subprotocol")
            yield from self._address(welcome, line.own_address)
            if not self._quick:
                yield self._idle(line.wait, frames)

    def _no_upgrade(self, answer: Answer) -> Finding:
        if answer.code == "upgrade_required":
            return bad("upgrade", "the proxy does not pass on the handshake", self._mend(UPGRADE))
        what = (
            f"the handshake is answered with {answer.status} ({answer.code or 'no pov-rt error'})"
        )
        if answer.code in ("token_invalid", "token_revoked"):
            return skipped("upgrade", f"{what}: the server has other keys than these settings")
        return bad("upgrade", what, self._mend(UPGRADE))

    def _address(self, welcome: bytes, own: str) -> Iterator[Finding]:
        name = "address"
        if is_trusted(own, self._settings.server):
            what = f"{own} is a proxy's by the settings, and may say who is behind it"
            yield skipped(name, f"{what}: run this from another machine, or --from another address")
            return
        seen = self._look_up(welcome.decode())
        if seen is None:
            yield skipped(name, "the admin port cannot be asked how the server sees a client")
            return
        server, found = self._settings.server, seen.remote_ip
        if found == FORGED:
            what = "a client can choose its address: what it sends in a header is believed"
            header = f'server.client_ip_header = "X-Forwarded-For"\n{self._mend(ADDRESS)}'
            yield bad(name, what, header)
        elif found != own and not server.trusted_proxies:
            what = f"all clients have the proxy's address, {found}, with its limits"
            yield bad(name, what, f'server.trusted_proxies = ["{found}"]\n{self._mend(ADDRESS)}')
        elif self._public.is_tls and not server.trusted_proxies and server.unix is None:
            what = "TLS ends in a proxy that server.trusted_proxies does not name"
            yield bad(name, what, f'server.trusted_proxies = ["{found}"]\n{self._mend(ADDRESS)}')
        elif found != own and found in server.trusted_proxies:
            what = f"the server takes this client for the proxy, {found}"
            yield bad(name, what, self._mend(ADDRESS))
        else:
            yield ok(name, f"the server sees this client as {found}")

    def _idle(self, wait: Callable[[float], None], frames: Iterator[tuple[int, bytes]]) -> Finding:
        interval_s = self._settings.ping.interval_s
        wait(interval_s + LATE_S)
        try:
            while next(frames)[0] != PING:
                pass
        except Gone:
            what = (
                f"a socket on which nothing happens is closed before the ping at {interval_s:g} s"
            )
            return bad("idle", what, f"{self._mend(IDLE)}\nor ping.interval_s below that time")
        return ok("idle", f"a socket outlives {interval_s:g} s of silence, until the server's ping")

    def origin(self) -> Iterator[Finding]:
        """Look whether pages of the right origins get in, and others do not."""
        name = "origin"
        allowed = [self._public.origin, *self._settings.server.allowed_origins]
        found = list[Finding]()
        for origin in dict.fromkeys(allowed):
            if (answer := self._as_page(origin)).status != 101:
                what = f"pages of {origin} get no socket ({answer.status} {answer.code or ''})"
                mend = (
                    f'server.public_url = "{self._public.origin}"'
                    if origin == self._public.origin
                    else "have the proxy pass on the header Origin as it is"
                )
                found.append(bad(name, what, mend))
        if self._as_page(STRANGER).status == 101:
            what = "pages of any site get a socket: the header Origin does not reach the server"
            mend = "have the proxy pass on Origin, and list pages in server.allowed_origins"
            found.append(bad(name, what, mend))
        yield from found
        if not found:
            yield ok(name, f"pages of {', '.join(dict.fromkeys(allowed))} get in, others do not")

    def _as_page(self, origin: str) -> Answer:
        with self._public.open() as line:
            return self._public.upgrade(line, self._token(False), {"Origin": origin})

    def buffering(self) -> Iterator[Finding]:
        """Look whether an event arrives while its answer goes on."""
        name = "buffering"
        headers = {
            "Authorization": f"Bearer {self._token(False)}",
            "Accept": "text/event-stream",
        }
        with self._public.open() as line:
            line.wait(FIRST_EVENT_S)
            target = f"/api/povs/{POV}/stream?offset=-1&live=sse"
            self._public.request(line, "GET", target, headers)
            try:
                head = line.head()
                if head.status != 200:
                    yield skipped(name, f"events are answered with {head.status}")
                    return
                line.some()
            except Gone:
                what = "events are held back until an answer ends, for which they come too late"
                yield bad(name, what, self._mend(BUFFERING))
                return
        yield ok(name, "events come as they happen")

    def body(self) -> Iterator[Finding]:
        """Look whether the largest body that the server takes gets there. It publishes nothing."""
        name, size = "body size", self._settings.limits.publish_bytes
        headers = {"Authorization": f"Bearer {self._token(True)}"}
        try:
            answer = self._public.ask("POST", "/api/activities", headers, b" " * size)
            is_there, why = answer.code not in (None, "too_large"), str(answer.status)
        except Gone as error:
            is_there, why = False, str(error)
        if not is_there:
            what = f"a body of {size:,} bytes (limits.publish_bytes) is refused on its way"
            yield bad(name, f"{what} ({why})", self._mend(BODY))
        else:
            yield ok(name, f"a body of {size:,} bytes gets there")

    def head(self) -> Iterator[Finding]:
        """Look whether a long token gets there."""
        name = "head size"
        answer = self._public.ask(
            "GET", "/api/auth/ws-token", {"Authorization": f"Bearer {'x' * LONG_TOKEN}"}
        )
        if answer.code is None:
            what = f"a token of {LONG_TOKEN:,} bytes is refused on its way ({answer.status})"
            yield bad(name, what, self._mend(HEAD))
        else:
            yield ok(name, f"a token of {LONG_TOKEN:,} bytes gets there")

    def exposed(self) -> Iterator[Finding]:
        """Look whether strangers get at the admin port."""
        name = "admin port"
        for path in ("/metrics", "/readyz"):
            answer = self._public.ask("GET", path)
            if answer.status == 200 and (b"pov_rt_" in answer.body or b'"status"' in answer.body):
                yield bad(name, f"strangers can read {path}", self._mend(EXPOSED))
                return
        yield ok(name, "it is not reached from outside")

    def _mend(self, how: tuple[str, str]) -> str:
        """Return how this proxy mends it; of one that does not say what it is, both."""
        any_proxys, nginxs = how
        if self._proxy == "nginx":
            return nginxs
        return any_proxys if self._proxy else f"{any_proxys}\nnginx: {nginxs}"
