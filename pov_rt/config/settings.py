"""Every setting with its default. Loading and merging the sources is `config`'s work.

Names carry their unit. The Structs refuse unknown keys and wrong types; `find_problems` tells what
else cannot work. docs/configuration.md has an entry for each setting, compared by a test.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

import msgspec
from msgspec import Meta, field

from pov_rt.config.networks import read_network
from pov_rt.protocol.details.depth import MAX_DETAILS_DEPTH
from pov_rt.runtime.limits import parse_rate

# 30 years are as good as for ever, and TOML's `inf` would break timers.
Positive = Annotated[float, Meta(gt=0, le=1e9)]
NotNegative = Annotated[float, Meta(ge=0, le=1e9)]
Count = Annotated[int, Meta(ge=1)]
MAX_PORT = 65535
Port = Annotated[int, Meta(ge=0, le=MAX_PORT)]
ClaimPath = Annotated[str, Meta(min_length=1, max_length=256)]
RateText = str
"""How often, such as `5/s`, `100/m`, `1/h`: what `parse_rate` reads."""


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the settings."""


class ServerSettings(Section, frozen=True, kw_only=True):
    """Where the server listens and who may talk to it from a browser."""

    host: str = "127.0.0.1"
    port: Port = 8765
    unix: str | None = None
    """Listen on this Unix socket and not on TCP."""
    admin_host: str = "127.0.0.1"
    admin_port: Port = 8766
    admin_actions: bool = False
    """Have the admin port do what operators may, such as to block a user; else it only shows."""
    data: str | None = None
    """Folder for the log and, under --dev, the secret. Default: $STATE_DIRECTORY, else `.dev` under
    --dev, else none."""
    allowed_origins: list[str] = field(default_factory=list)
    """Origins (`https://app.example`) of the pages that may use the server; same host always."""
    allowed_hosts: list[str] = field(default_factory=list)
    """Host names that requests may ask for; empty: any, but only local ones where only this machine
    gets in, or under dev."""
    trusted_proxies: list[str] = field(default_factory=list)
    """Addresses and networks whose `client_ip_header` and X-Forwarded-Proto are believed."""
    client_ip_header: str = "X-Forwarded-For"
    """The one header in which the proxies write the client's address, the nearest one last."""
    public_url: str | None = None
    """Where browsers find the server, such as `https://rt.example`; none: as the request says."""
    workers: Count = 1
    """How many processes share the port, each a node of its own; more than one need Redis. Each has
    the admin port above the one before, and a folder `worker-N` in `data`."""
    drain_s: Positive = 10.0
    """How long SIGTERM waits for what is under way, before anybody is sent away."""
    plugins_dir: str | None = None
    """Folder of further plugin files."""
    conformance_echo: bool = False
    """Mount /ws/_echo, which sends each message back (protocol conformance suites)."""


class RoleSettings(Section, frozen=True, kw_only=True):
    """What a token's `role` claim allows."""

    can: list[str] = field(default_factory=list)


class AuthSettings(Section, frozen=True, kw_only=True):
    """Keys, and what is asked of a token."""

    secrets: list[str] = field(default_factory=list)
    """HS256 secrets of at least 32 bytes, newest first; the first one signs socket tokens."""
    secret_files: list[str] = field(default_factory=list)
    """Files with one secret each, before `secrets` in order."""
    public_key_files: list[str] = field(default_factory=list)
    """PEM public keys of the app's tokens: RSA for RS256, EC P-256 for ES256, Ed25519 for EdDSA."""
    jwks_file: str | None = None
    jwks_url: str | None = None
    jwks_refresh_s: Positive = 300.0
    key_overlap_s: NotNegative = 3600.0
    """How long a key that left the JWKS or the settings (on reload) is still accepted."""
    cookie: str = "accessToken"
    socket_ttl_s: Positive = 3600.0
    grace_s: NotNegative = 25.0
    """How long a socket outlives its token's expiry, so that a refresh can still arrive."""
    warning_s: Positive = 60.0
    """How long before a token's expiry `token_expiring` is sent."""
    leeway_s: NotNegative = 5.0
    """Clock difference allowed for `nbf` and `iat`; `exp` has none."""
    default_povs: Literal["*", "none"] | None = None
    """What a token without `povs` may see: every PoV, or none. Has to be chosen, but under dev."""
    require_grants: bool | None = None
    """The same choice as older versions called it: true stands for none, false for `*`."""
    tenants: bool = False
    """Keep teams apart: every id of a PoV or user lies below its token's `teamId`."""
    issuer: str | None = None
    """The `iss` that the app's tokens must have; none: any, or no."""
    audiences: list[str] = field(default_factory=list)
    """The `aud` of the app's tokens: one of these must be among theirs; empty: they have none."""
    user_claim: ClaimPath = "userId"
    """Where the app's tokens have the user's id: a claim, or a path such as `user.id`."""
    role_claim: ClaimPath = "role"
    """Where they have the role, or a list of roles."""
    team_claim: ClaimPath = "teamId"
    povs_claim: ClaimPath = "povs"
    types: list[str] | None = None
    """The `typ` (header) that the app's tokens must have; none: `JWT`, `at+jwt`, or no `typ`."""
    require_audience: bool = False
    """Refuse the app's tokens at /ws/: only tokens for `pov-rt.socket` open one."""
    roles: dict[str, RoleSettings] = field(default_factory=dict)
    revocation_s: Positive | None = None
    """How long a revocation is kept; then tokens that are valid for longer are refused. None: for
    ever, and tokens may be valid for any time."""
    max_revocations: Count = 500_000
    """How many are kept; past that the oldest are forgotten."""
    verified_bytes: Count = 64 * 1024 * 1024
    """What verified tokens may take that are remembered; a sixteenth of it for one user."""

    @property
    def sees_all_by_default(self) -> bool:
        """Whether a token without `povs` may see every PoV: no, as long as nobody has chosen."""
        if self.default_povs is None:
            return self.require_grants is False
        return self.default_povs == "*"


class LimitSettings(Section, frozen=True, kw_only=True):
    """Bounds, so that no client can take what belongs to others."""

    message_bytes: Count = 64 * 1024
    details_bytes: Count = 16 * 1024
    details_depth: Annotated[int, Meta(ge=1, le=MAX_DETAILS_DEPTH)] = 32
    """Levels of objects and lists in `details`, itself being the first."""
    subscriptions: Count = 200
    """Per connection."""
    connections: Annotated[int, Meta(ge=0)] = 0
    """All sockets; 0: the open-file limit less 64."""
    connections_per_user: Count = 64
    connections_per_address: Annotated[int, Meta(ge=0)] = 1000
    """Connections of one address (IPv6: /64) that are no sockets yet; past it its oldest that asks
    nothing is dropped. 0: no bound; trusted proxies have none."""
    devices_per_user: Count = 16
    message_rate: RateText = "50/s"
    """Messages of one connection, with a burst of twice that."""
    control_rate: RateText = "200/s"
    """Pings, pongs and small fragments of one connection, with a burst of five times that; past it
    the connection is closed."""
    cost_rate: RateText = "2000/s"
    """What all messages and requests of one user may cost, with a burst of three times that; the
    unit is about a tenth of a millisecond of the server's time."""
    pages_bytes: Count = 64 * 1024 * 1024
    """Large answers that clients have not read yet; an eighth of it for one user."""
    rejected_messages: Count = 500
    """By how many rate-limited messages may outnumber the others; then the connection is closed."""
    inbox_messages: Count = 64
    """Messages of one connection that wait for a slow handler; then its socket is not read."""
    handler_deadline_s: Positive = 5.0
    plugin_failures: Annotated[int, Meta(ge=0)] = 20
    """How often in a row a function of a plugin may fail, or within ten minutes the plugin block
    the event loop; then the plugin is off until a reload. 0: it never is."""
    handshake_s: Positive = 10.0
    """How long a request may take to arrive, a handshake too."""
    keepalive_s: Positive = 75.0
    """How long an HTTP connection waits for its next request."""
    queue_bytes: Count = 1024 * 1024
    """Bytes that wait for one slow client."""
    queue_slow_bytes: Count = 256 * 1024
    queue_slow_s: Positive = 5.0
    """A client with more than queue_slow_bytes waiting for this long is closed."""
    publish_batch: Count = 1000
    publish_bytes: Count = 4 * 1024 * 1024
    """Body of one HTTP request."""
    bodies_bytes: Count = 64 * 1024 * 1024
    """Bodies of all HTTP requests that are under way or being handled; past it 503."""
    bodies_bytes_per_user: Count = 16 * 1024 * 1024
    types: list[str] | None = None
    """Activity types that may be published; none: any."""
    actions: list[str] | None = None
    token_rate: RateText = "20/s"  # noqa: S105  (a rate, no secret)
    """Token requests of one address."""
    failed_rate: RateText = "20/s"
    """Tokens of one address that are not good, with a burst of ten times that; past it no signature
    of its tokens is checked, and they are refused with 429."""
    last_seen_users: Count = 10_000
    """Users who have left of whom is known when that was."""


class ActivitySettings(Section, frozen=True, kw_only=True):
    """What activities of one type and action have to be."""

    details: str | None = None
    """File with the JSON Schema of `details`, relative to the settings file that names it."""


class PingSettings(Section, frozen=True, kw_only=True):
    """Health of connections."""

    interval_s: Positive = 25.0
    timeout_s: Positive = 10.0


class StreamSettings(Section, frozen=True, kw_only=True):
    """Logs over HTTP."""

    enabled: bool = True
    poll_s: Positive = 20.0
    """How long a request waits for something to happen."""
    sse_s: Positive = 60.0
    """After how long an answer of events ends, and its client asks for the next one."""
    read_rate: RateText = "20/s"
    """Requests of one user, with a burst of twice that."""


class RedisSettings(Section, frozen=True, kw_only=True):
    """How the engine uses a Redis that `engine.url` names."""

    prefix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,32}$")] = "pr"
    """What all keys begin with: several systems may share a Redis."""
    partitions: Annotated[int, Meta(ge=1, le=1000)] = 128
    """Parts that topics are spread over; what is there stays with the number it began with."""
    deadline_s: Positive = 2.0
    """How long Redis may take; then publishers are told to come back, and it is tried anew."""
    replicas: Annotated[int, Meta(ge=0)] = 0
    """Replicas that must have an entry before it is acknowledged."""
    wait_ms: Count = 100
    """How long those may take."""
    guarantee: Literal["", "primary", "second", "disk"] = ""
    """What an acknowledgement survives, where we may not ask Redis for its own settings."""
    ca_file: str = ""
    """Certificates that `rediss://` trusts; empty: those of the system."""
    sentinel_user: str = ""
    """Whom the sentinels know us as, where they ask; in engine.url is whom Redis knows."""
    sentinel_password: str = ""


class EngineSettings(Section, frozen=True, kw_only=True):
    """Where activities are kept."""

    url: str = "sqlite://"
    """`sqlite:///path`; `sqlite://`: `pov-rt.db` in server.data; `memory://`: nothing is kept;
    `redis://` or `rediss://USER:PASSWORD@HOST:PORT/DATABASE`: on a Redis that nodes share;
    `redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/NAME`: on the one that sentinels name."""
    max_entries: Count = 10_000
    """Entries kept per topic."""
    max_age_s: Positive = 7 * 86400.0
    max_topics: Count = 1_000_000
    topics_per_hour: Count = 50_000
    """Topics that one publisher may begin in an hour, half of max_topics at most."""
    max_marks: Count = 1_000_000
    """Watermarks of all users."""
    marks_per_user: Count = 5_000
    """Watermarks of a user, a tenth of max_marks at most. For one more the longest unused goes."""
    mark_age_s: Positive = 30 * 86400.0
    """How long a watermark is kept that its user does not use; max_age_s at least."""
    store_bytes: Count = 256 * 1024 * 1024
    """What plugins keep in the store, half of it one plugin's; past that they are refused."""
    id_window_s: Positive = 86400.0
    """How long a publisher's ids are remembered, so that a retry is no second activity."""
    producer_age_s: Positive = 30 * 86400.0
    """How long the last number of a producer is remembered in a topic; id_window_s at least."""
    max_producers: Count = 1_000_000
    """Last numbers of producers, in all topics together."""
    max_ids: Count = 1_000_000
    """Ids that `memory://` remembers; past that the oldest are forgotten before their time."""
    backlog_bytes: Count = 64 * 1024 * 1024
    """What may wait for a slow disk, half of it one publisher's; past that publishers are told to
    come back later."""
    redis: RedisSettings = field(default_factory=RedisSettings)


class PovSettings(Section, frozen=True, kw_only=True):
    """What is kept of the PoVs that a pattern fits; none: as of all others."""

    max_entries: Count | None = None
    max_age_s: Positive | None = None
    audit: bool = False
    """Keep who was sent what, and when, as long as the log."""


class TraceSettings(Section, frozen=True, kw_only=True):
    """What is kept of what happened to users, for `pov-rt explain`."""

    enabled: bool = True
    events_each: Count = 100
    """Events in memory of one user, and of one PoV."""
    events: Count = 50_000
    """In memory, of all; past it those of whoever was heard of longest ago go."""
    file_bytes: Annotated[int, Meta(ge=0)] = 32 * 1024 * 1024
    """What `trace.jsonl` and `trace.1.jsonl` in server.data may take; 0: there is no file."""
    max_age_s: Positive = 48 * 3600.0
    """How long what is in the file is kept."""


class LogSettings(Section, frozen=True, kw_only=True):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"
    """auto: text on a terminal, JSON lines elsewhere."""
    blocked_loop_s: Positive = 0.25
    """A handler that holds the event loop for longer is named in the log."""


class Settings(Section, frozen=True, kw_only=True):
    """All settings.

    `plugins.NAME` is checked by that plugin's own options class, and `activities."TYPE.ACTION"`
    where the schemas are read.
    """

    server: ServerSettings = field(default_factory=ServerSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    ping: PingSettings = field(default_factory=PingSettings)
    streams: StreamSettings = field(default_factory=StreamSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    pov: dict[str, PovSettings] = field(default_factory=dict)
    """By a pattern of PoV ids, in which `*` stands for any characters; with `auth.tenants` of
    `TEAM/POV`. The most specific one that fits counts."""
    log: LogSettings = field(default_factory=LogSettings)
    trace: TraceSettings = field(default_factory=TraceSettings)
    activities: dict[str, ActivitySettings] = field(default_factory=dict)
    plugins: dict[str, dict[str, Any]] = field(default_factory=dict)
    dev: bool = False
    """Development: a secret that is made and kept, any localhost origin, the console, the demo."""

    @property
    def longest_s(self) -> float:
        """How long the entries are kept that are kept for longest."""
        ages = [own.max_age_s for own in self.pov.values() if own.max_age_s is not None]
        return max(self.engine.max_age_s, *ages, 0.0)


DATABASE = "pov-rt.db"
"""The database's name in the folder `server.data`."""

ENGINES = ("memory", "sqlite", "redis", "rediss", "redis+sentinel", "rediss+sentinel")
"""Schemes that engine.url may have."""

SOCKET_AUDIENCE = "pov-rt.socket"
SERVICE_AUDIENCE = "pov-rt.service"
OWN_AUDIENCES = (SOCKET_AUDIENCE, SERVICE_AUDIENCE)
"""The `aud` of tokens that are made for this server, by itself or by the app."""

MIN_SECRET_BYTES = 32
"""RFC 7518, section 3.2: an HS256 key has at least the size of the hash output."""


class SettingsError(Exception):
    """A setting is wrong; the text says which, where it came from, and what would be right."""


def find_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield the name of each setting that cannot work, and what is wrong and would be right."""
    yield from _find_server_problems(settings.server)
    yield from _find_key_problems(settings.auth, dev=settings.dev)
    yield from _find_token_problems(settings.auth, dev=settings.dev)
    yield from _find_limit_problems(settings.limits)
    yield from _find_pattern_problems(settings)
    try:
        parse_rate(settings.streams.read_rate)
    except ValueError as error:
        yield "streams.read_rate", str(error)
    if settings.auth.warning_s >= settings.auth.socket_ttl_s:
        yield (
            "auth.warning_s",
            "must be below auth.socket_ttl_s, or each new token is as good as old",
        )
    scheme = settings.engine.url.partition("://")[0]
    if scheme not in ENGINES:
        yield "engine.url", f"there is no engine {scheme!r}; there are: {', '.join(ENGINES)}"
    elif scheme == "sqlite" and database_path(settings) is None:
        yield (
            "engine.url",
            "names no file: set server.data (or --data) to a folder, write sqlite:///path, or "
            "memory:// to keep nothing",
        )
    elif settings.server.workers > 1:
        yield from _find_worker_problems(settings, scheme)


def database_path(settings: Settings) -> Path | None:
    """Return the file of a `sqlite://` engine; None if neither the URL nor a folder names one.

    None of an engine that has no file.
    """
    scheme, _, place = settings.engine.url.partition("://")
    if scheme != "sqlite":
        return None
    if named := unquote(place):
        return Path(named)
    return Path(settings.server.data, DATABASE) if settings.server.data else None


_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_HOST = r"(?:[a-z0-9_](?:[a-z0-9._-]*[a-z0-9_])?|\[[0-9a-f:.]+\])"
_HOST_NAME = re.compile(rf"{_HOST}\.?")
_ORIGIN = re.compile(rf"[a-z][a-z0-9+.-]*://{_HOST}(?::[0-9]{{1,5}})?")
_ODD_ORIGIN = re.compile(r"null|(?!https?:|wss?:)[a-z][a-z0-9+.-]*://[!-)+.0-Z^-~-]*")
"""What apps send that are no pages of a site: `file://`, `app://-`, and pages without an origin."""
_HEADER_NAME = re.compile(r"[A-Za-z0-9-]{1,64}")
_DEFAULT_PORT = re.compile(r"http://.*:80|https://.*:443")


def _find_server_problems(server: ServerSettings) -> Iterator[tuple[str, str]]:
    for origin in server.allowed_origins:
        # Compared with what browsers send, byte for byte: anything else would never match.
        if _ODD_ORIGIN.fullmatch(origin):
            continue
        if not _ORIGIN.fullmatch(origin) or _DEFAULT_PORT.fullmatch(origin):
            yield (
                "server.allowed_origins",
                f"{origin!r} is no origin; write scheme://host or scheme://host:port as browsers "
                "send it: in lower case, without path, '*' or default port; what an app sends "
                "that is no page of a site, like 'file://', 'app://-' or 'null', as it sends it",
            )
    for host in server.allowed_hosts:
        if not _HOST_NAME.fullmatch(host):
            yield (
                "server.allowed_hosts",
                f"{host!r} is no host name; write it like 'rt.example', in lower case, "
                "without scheme, port or '*'",
            )
    public = server.public_url
    if public is not None and (
        not _ORIGIN.fullmatch(public)
        or _DEFAULT_PORT.fullmatch(public)
        or not public.startswith(("http://", "https://"))
    ):
        yield (
            "server.public_url",
            f"{public!r} is no origin; write https://host or https://host:port, in lower case, "
            "without path or default port",
        )
    if not _HEADER_NAME.fullmatch(server.client_ip_header):
        yield "server.client_ip_header", f"{server.client_ip_header!r} is no name of a header"
    elif server.client_ip_header.lower() == "forwarded":
        yield (
            "server.client_ip_header",
            "'Forwarded' (RFC 7239) is not read: have the proxy write the client's address into "
            "X-Forwarded-For, or another header that has nothing else in it",
        )
    for proxy in server.trusted_proxies:
        try:
            read_network(proxy)
        except ValueError as error:
            yield (
                "server.trusted_proxies",
                f"{proxy!r} is no IP address like '10.0.0.2', nor a network like '10.0.0.0/8': "
                f"{error}",
            )
    listens = (server.host, server.port)
    if server.port and server.unix is None and listens == (server.admin_host, server.admin_port):
        yield "server.admin_port", "is also server.port; they need a port each"


def _find_worker_problems(settings: Settings, scheme: str) -> Iterator[tuple[str, str]]:
    server = settings.server
    if "redis" not in scheme:
        yield (
            "server.workers",
            f"{server.workers} processes need a log that they share, and {scheme}:// is one "
            "process's own: set engine.url to a redis://HOST, or server.workers to 1",
        )
    if settings.dev:
        yield "server.workers", "must be 1 under --dev: that process starts anew at each change"
    first, last = server.admin_port, server.admin_port + server.workers - 1
    if not first:
        return
    if last > MAX_PORT:
        yield "server.admin_port", f"the last worker's would be {last}; {MAX_PORT} is the highest"
    elif first < server.port <= last and server.unix is None:
        yield (
            "server.admin_port",
            f"the workers take {first} to {last}, and server.port is {server.port}; choose another",
        )


def _find_key_problems(auth: AuthSettings, *, dev: bool) -> Iterator[tuple[str, str]]:
    remedy = "make a secret with: openssl rand -base64 48"
    for index, secret in enumerate(auth.secrets):
        size = len(secret.encode("utf-8", "surrogateescape"))
        if size < MIN_SECRET_BYTES:
            yield (
                "auth.secrets",
                f"[{index}] has {size} bytes; HS256 needs at least {MIN_SECRET_BYTES}; {remedy}",
            )
    url = auth.jwks_url
    if url is not None and not _is_safe_url(url):
        yield (
            "auth.jwks_url",
            "must be an https:// URL: whoever can change the answer can sign tokens "
            "(http:// is accepted from this machine only)",
        )
    if not dev and not (auth.secrets or auth.secret_files or auth.public_key_files):
        if auth.jwks_file is None and url is None:
            yield (
                "auth.secrets",
                "there is no key to check tokens with; set auth.secrets or auth.secret_files to "
                f"the secret of the app's tokens ({remedy}), or auth.public_key_files, "
                "auth.jwks_file or auth.jwks_url; to try things out, start with --dev",
            )


def _find_token_problems(auth: AuthSettings, *, dev: bool) -> Iterator[tuple[str, str]]:
    if auth.default_povs is None and auth.require_grants is None and not dev:
        yield (
            "auth.default_povs",
            "what may a token without the claim `povs` see? There is no default; under [auth] "
            "write one of these lines:\n"
            '  default_povs = "*"     # every PoV of every team: for apps that hide none\n'
            '  default_povs = "none"  # no PoV: the app lists in each token what it may see\n'
            "or start with --dev to try things out, where it is the first",
        )
    elif None not in (auth.default_povs, auth.require_grants) and (
        auth.require_grants is auth.sees_all_by_default
    ):
        yield "auth.require_grants", "says the opposite of auth.default_povs; remove one of them"
    if auth.issuer == "":
        yield "auth.issuer", "is empty: no token has that issuer; remove it, or write the app's"
    for audience in auth.audiences:
        if not audience or audience in OWN_AUDIENCES:
            yield (
                "auth.audiences",
                f"{audience!r} is none of the app's: "
                + ("its tokens could be exchanged again and again" if audience else "it is empty"),
            )
    if auth.types is not None and not all(auth.types):
        yield "auth.types", "has an empty type; remove it, or the setting for the default"
    if auth.types == []:
        yield "auth.types", "is empty: no token would be accepted; remove it for the default"


def join_name(path: str, key: str) -> str:
    """Return the dotted name of a key of the table `path`, quoted as in TOML where needed."""
    key = key if _BARE_KEY.fullmatch(key) else json.dumps(key)
    return f"{path}.{key}" if path else key


def describe_access(auth: AuthSettings) -> str:
    """Return in one sentence who may see what."""
    if auth.sees_all_by_default:
        whose = "its own team" if auth.tenants else "every team"
        seen = f"one without it may see every PoV of {whose}"
    else:
        seen = "one without it may see none"
    asked = [
        f"{claim} {' or '.join(map(repr, values))}"
        for claim, values in (
            ("iss", [auth.issuer] if auth.issuer is not None else []),
            ("aud", auth.audiences),
            ("typ", auth.types or []),
        )
        if values
    ]
    of = f" (the app's tokens must have {', '.join(asked)})" if asked else ""
    below = " of its team" if auth.tenants else ""
    return f"a token may see the PoVs{below} that its claim povs lists, and {seen}{of}"


def _find_limit_problems(limits: LimitSettings) -> Iterator[tuple[str, str]]:
    if limits.queue_slow_bytes >= limits.queue_bytes:
        yield "limits.queue_slow_bytes", f"must be below limits.queue_bytes, {limits.queue_bytes}"
    if limits.details_bytes >= limits.message_bytes:
        yield (
            "limits.details_bytes",
            f"must be below limits.message_bytes, {limits.message_bytes}, to fit into a message",
        )
    if not limits.publish_bytes <= limits.bodies_bytes_per_user <= limits.bodies_bytes:
        yield (
            "limits.bodies_bytes_per_user",
            f"must be from limits.publish_bytes, {limits.publish_bytes}, to limits.bodies_bytes, "
            f"{limits.bodies_bytes}: one body must fit in, and one user not fill all",
        )
    for name in ("message_rate", "cost_rate", "control_rate", "token_rate", "failed_rate"):
        try:
            parse_rate(getattr(limits, name))
        except ValueError as error:
            yield f"limits.{name}", str(error)


def _find_pattern_problems(settings: Settings) -> Iterator[tuple[str, str]]:
    for pattern, own in settings.pov.items():
        name = join_name("pov", pattern)
        if not pattern or not pattern.isprintable():
            yield name, "is no pattern of ids; write one like 'acme-*', where * is any characters"
        elif settings.auth.tenants and "/" not in pattern:
            yield name, f"names no team, as auth.tenants needs: write 'TEAM/{pattern}'"
        elif own.max_entries is own.max_age_s is None and not own.audit:
            yield name, "says nothing: set max_age_s, max_entries, audit, or several"


def _is_safe_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if not host or parts.scheme not in ("http", "https"):
        return False
    return parts.scheme == "https" or host == "localhost" or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    return _is_address(host) and ip_address(host).is_loopback


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
