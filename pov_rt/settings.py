"""Every setting with its default. Loading and merging the sources is `config`'s work.

Names carry their unit. The Structs refuse unknown keys and wrong types; `check` refuses
combinations that cannot work. docs/configuration.md has an entry for each, compared by a test.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]
Port = Annotated[int, Meta(ge=0, le=65535)]
Rate = Annotated[str, Meta(pattern=r"\A[0-9]+(\.[0-9]+)?/(s|m|h)\Z")]
"""How often, such as `5/s`, `100/m`, `1/h`."""


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
    data: str | None = None
    """Folder for the log and, under --dev, the secret. Default: $STATE_DIRECTORY, else none."""
    allowed_origins: list[str] = field(default_factory=list)
    """Origins (`https://app.example`) of the pages that may use the server; same host always."""
    allowed_hosts: list[str] = field(default_factory=list)
    """Host names that requests may ask for; empty: any (put a proxy that checks it in front)."""
    trusted_proxies: list[str] = field(default_factory=list)
    """Addresses whose X-Real-IP and X-Forwarded-For are believed."""
    drain_s: Positive = 10.0
    """How long SIGTERM takes to close all sockets, in waves."""
    plugins_dir: str | None = None
    """Folder of further plugin files."""
    conformance_echo: bool = False
    """Mount /ws/_echo, which answers each message with itself (protocol conformance suites)."""


class RoleSettings(Section, frozen=True, kw_only=True):
    """What a token's `role` claim allows."""

    can: list[str]


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
    key_overlap_s: Positive = 3600.0
    """How long a key that left the JWKS or the settings (on reload) is still accepted."""
    cookie: str = "accessToken"
    socket_ttl_s: Positive = 3600.0
    grace_s: Annotated[float, Meta(ge=0)] = 25.0
    """How long a socket outlives its token's expiry, so that a refresh can still arrive."""
    warning_s: Positive = 60.0
    """How long before a token's expiry `token_expiring` is sent."""
    leeway_s: Annotated[float, Meta(ge=0)] = 5.0
    """Clock difference allowed for `nbf` and `iat`; `exp` has none."""
    require_audience: bool = False
    """Refuse tokens without audience at /ws/ (apps that mint their own then must set it)."""
    require_grants: bool = False
    """Refuse tokens without `povs`; otherwise such a token may see every PoV."""
    roles: dict[str, RoleSettings] = field(default_factory=dict)
    verified_cache: Count = 50_000
    """How many verified tokens are remembered."""


class LimitSettings(Section, frozen=True, kw_only=True):
    """Bounds, so that no client can take what belongs to others."""

    message_bytes: Count = 64 * 1024
    details_bytes: Count = 16 * 1024
    subscriptions: Count = 200
    """Per connection."""
    connections: Annotated[int, Meta(ge=0)] = 0
    """All sockets; 0: the open-file limit less 64."""
    connections_per_user: Count = 64
    devices_per_user: Count = 16
    message_rate: Rate = "50/s"
    """Messages of one connection, with a burst of twice that."""
    rejected_messages: Count = 500
    """Rate-limited messages in a row after which the connection is closed."""
    inbox_messages: Count = 64
    """Messages of one connection that wait for a slow handler; then its socket is not read."""
    handler_deadline_s: Positive = 5.0
    handshake_s: Positive = 10.0
    queue_bytes: Count = 1024 * 1024
    """Bytes that wait for one slow client."""
    queue_slow_bytes: Count = 256 * 1024
    queue_slow_s: Positive = 5.0
    """A client with more than queue_slow_bytes waiting for this long is closed."""
    publish_batch: Count = 1000
    publish_bytes: Count = 4 * 1024 * 1024
    """Body of one HTTP publish."""
    types: list[str] | None = None
    """Activity types that may be published; none: any."""
    actions: list[str] | None = None
    token_rate: Rate = "20/s"  # noqa: S105  (a rate, no secret)
    """Token requests of one address."""


class PingSettings(Section, frozen=True, kw_only=True):
    """Health of connections."""

    interval_s: Positive = 25.0
    timeout_s: Positive = 10.0


class EngineSettings(Section, frozen=True, kw_only=True):
    """Where activities are kept."""

    url: str = "memory://"
    max_entries: Count = 10_000
    """Entries kept per topic."""
    max_age_s: Positive = 7 * 86400.0
    max_topics: Count = 100_000
    id_window_s: Positive = 86400.0
    """How long a publisher's ids are remembered, so that a retry is no second activity."""


class LogSettings(Section, frozen=True, kw_only=True):
    """What is logged, and how."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "json", "text"] = "auto"
    """auto: text on a terminal, JSON lines elsewhere."""
    blocked_loop_s: Positive = 0.25
    """A handler that holds the event loop for longer is named in the log."""


class Settings(Section, frozen=True, kw_only=True):
    """All settings. `plugins.NAME` is checked by that plugin's own options class."""

    server: ServerSettings = field(default_factory=ServerSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    limits: LimitSettings = field(default_factory=LimitSettings)
    ping: PingSettings = field(default_factory=PingSettings)
    engine: EngineSettings = field(default_factory=EngineSettings)
    log: LogSettings = field(default_factory=LogSettings)
    plugins: dict[str, dict[str, Any]] = field(default_factory=dict)
    dev: bool = False
    """Development: makes and keeps a secret, allows any localhost origin, serves the console."""


MIN_SECRET_BYTES = 32
"""RFC 7518, section 3.2: an HS256 key has at least the size of the hash output."""


class SettingsError(Exception):
    """A setting is wrong; the text says which, where it came from, and what would be right."""
