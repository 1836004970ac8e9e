"""What one member at its limits does, and what strangers do: the attacks of scenario `hostile`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from bench.attack import Crowd
from bench.load import Client, text_frame
from bench.peers import encode, token

SOCKETS = 64
"""Connections that one user may have by default."""
REQUESTS = 20
"""A second, of each connection over HTTP."""
MESSAGES = 50
"""A second, of each socket: `limits.message_rate`."""
POVS = 20
AUDIENCE = 500
"""Members of the PoV `full`."""
DETAILS = 16_000
"""Bytes, nearly as many as `limits.details_bytes` allows."""
ADDRESSES = 10
"""From where strangers come: each has no more connections than an address may have."""
HALF_BODY = 4 * 1024 * 1024
ME = "mallory"
MEMBER = ("subscribe", "collaborate")


@dataclass
class Case:
    """What is done at a time; those of `audience` are there before, and do no harm."""

    name: str
    crowds: Sequence[Crowd]
    audience: Sequence[Crowd] = field(default=())


def upgrade(user: str, *, device: str = "", can: Sequence[str] = MEMBER) -> str:
    """Return a handshake with a member's token, in hex."""
    named = f"&device={device}" if device else ""
    client = Client(f"/ws/?token={token(user, '*', can=can)}{named}", [])
    protocol = b"Sec-WebSocket-Protocol: pov-rt.v1\r\n\r\n"
    return (client.handshake().removesuffix(b"\r\n") + protocol).hex()


def frames(*messages: Mapping[str, object] | str) -> list[str]:
    """Return messages as a client's frames, in hex; a text is sent as it is."""
    return [text_frame(each if isinstance(each, str) else encode(each)).hex() for each in messages]


def request(path: str, user: str, *, method: str = "GET", more: str = "", body: str = "") -> str:
    """Return a request with a member's token, in hex."""
    given = token(user, "*", can=MEMBER) if user else "bad"
    return (
        (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {given}\r\n"
            f"{more}\r\n{body}"
        )
        .encode()
        .hex()
    )


def talk(*messages: Mapping[str, object] | str, reads: bool = True, can: Sequence[str] = MEMBER,
         first: Sequence[Mapping[str, object]] = ()) -> list[Crowd]:  # fmt: skip
    """Return a member with all sockets, each at its rate; `first` is what each begins with."""
    opening = upgrade(ME, can=can) + "".join(frames(*first))
    return [Crowd(SOCKETS, opening, frames(*messages), MESSAGES, reads=reads)]


def ask(path: str, *, connections: int = SOCKETS, rate: float = REQUESTS, times: int = 1,
        reads: bool = True) -> list[Crowd]:  # fmt: skip
    """Return a member who sends requests, so many at a time, and waits for no answer."""
    one = request(path, ME)
    return [Crowd(connections, one, [one * times], rate, reads=reads)]


def audience() -> list[Crowd]:
    """Return the members of the PoV `full`, who look at who is there."""
    messages = "".join(
        frames({"type": "subscribe", "povId": "full"}, {"type": "presence", "povId": "full"})
    )
    return [Crowd(1, upgrade(f"guest-{n}") + messages) for n in range(AUDIENCE)]


def member(epochs: Mapping[str, str]) -> Iterator[Case]:
    """Yield what one member does: always as often as its limits let it, and more."""
    povs = [f"pov-{n}" for n in range(POVS)]
    old = {"epoch": epochs["large"], "offset": 0}
    digest = {"type": "subscribe", "povId": "large", "since": old}
    many = {"type": "subscribe", "povIds": povs, "since": {"epoch": epochs["pov-0"], "offset": 0}}
    nothing = {"type": "subscribe", "povIds": [f"random-{n}" for n in range(200)]}
    last = {"type": "subscribe", "povId": "large", "since": {"last": 1000}}
    filtered = last | {"only": {"users": [f"user-{n}" for n in range(50)]}}
    history = {"type": "history", "povId": "large", "limit": 1000}
    rare = history | {"types": ["none"], "users": [f"user-{n}" for n in range(50)]}
    durable = {"type": "subscribe", "povIds": povs, "durable": True, "since": {"last": 1000}}
    marks = [
        {"type": kind, "povId": pov_id, "offset": offset}
        for kind in ("ack", "read")
        for pov_id in povs
        for offset in (0, 1, 1000)
    ]
    inbox = [{"type": kind, "inbox": True, "offset": 0} for kind in ("ack", "read")]
    full = {"type": "subscribe", "povId": "full"}
    present = {"type": "presence", "povId": "full"}
    signals: list[Mapping[str, object]] = [
        present | {"state": "away"},
        present | {"state": "active"},
        {"type": "typing", "povId": "full", "active": True, "where": "here"},
        {"type": "typing", "povId": "full", "active": False},
        {"type": "unsubscribe", "povId": "full"},
        full,
    ]
    deep = '{"type":"ping","a":' + "[" * 20_000 + "]" * 20_000 + "}"
    invalid: list[Mapping[str, object] | str] = [
        {"type": "nonsense"},
        {"type": "subscribe", "povIds": [f"\x00{n}" for n in range(200)]},
        {"type": "subscribe", "povIds": ["a"] * 200},
        {"type": "history", "povId": "large", "users": ["x" * 2000] * 50},
        deep,
        "x" * 60_000,
        '{"type":"publish","data":' + '{"details":' * 2000 + "1" + "}" * 2001,
    ]
    page = "/api/povs/large/activities?limit=1000"
    routes = [
        request(path, ME)
        for path in (
            page,
            "/api/povs/full/presence",
            "/api/povs/pov-1/receipts",
            "/api/auth/ws-token",
            "/api/connections",
            "/api/nowhere",
        )
    ]
    small = {"type": "task", "action": "done", "povId": "full", "userId": ME}
    large = small | {"povId": "mine", "details": {"x": "x" * DETAILS}}
    publisher = (*MEMBER, "publish")
    ways: list[Mapping[str, object] | str] = [
        {"type": "ping"}, digest, many, nothing, {"type": "resume"}, last, filtered, durable,
        {"type": "unsubscribe", "povId": "large"}, history, rare, *marks[:3], *signals,
        *inbox, {"type": "nonsense"},
    ]  # fmt: skip
    yield Case("digests", talk(digest))
    yield Case("200 PoVs a message", talk(many, nothing))
    yield Case("the last 1000", talk(last))
    yield Case("the last 1000, unread", talk(last, reads=False))
    yield Case("filters", talk(filtered))
    yield Case("history", talk(history, rare))
    yield Case("history of nothing", talk(*({**history, "povId": f"r-{n}"} for n in range(200))))
    yield Case("resume", talk({"type": "resume"}, first=[durable]))
    yield Case("HTTP history", ask(page))
    yield Case("HTTP pipelined", ask(page, times=50))
    yield Case("pages nobody reads", ask(page, connections=1000, rate=1, reads=False))
    yield Case("all routes", [Crowd(SOCKETS, routes[0], routes, REQUESTS)], audience())
    yield Case("marks", talk(*marks, *inbox, first=[durable]))
    yield Case("presence of 500", talk(present, first=[full]), audience())
    yield Case("presence of 500, unread", talk(present, first=[full], reads=False), audience())
    yield Case("signals to 500", talk(*signals, first=[full]), audience())
    yield Case("publish to 500", talk({"type": "publish", "data": small}, can=publisher),
               audience())  # fmt: skip
    yield Case("publish 16 KiB", talk({"type": "publish", "data": large}, can=publisher))
    yield Case("invalid", talk(*invalid))
    yield Case("connect and go", [Crowd(100, upgrade(ME), stays_s=0.05)])
    yield Case(
        "connect and go, devices",
        [Crowd(1, upgrade(ME, device=f"device-{n}"), stays_s=0.05) for n in range(100)],
    )
    yield Case("tokens", ask("/api/auth/ws-token", rate=MESSAGES))
    yield Case(
        "all of it",
        [
            Crowd(SOCKETS // 2, upgrade(ME), frames(*ways), MESSAGES),
            Crowd(SOCKETS // 4, upgrade(ME), frames(*ways), MESSAGES, reads=False),
            Crowd(SOCKETS, routes[0], routes, REQUESTS),
            Crowd(100, request(page, ME), [request(page, ME)], 1, reads=False),
            Crowd(20, upgrade(ME), stays_s=0.05),
        ],
        audience(),
    )


def strangers(number: int) -> Iterator[Case]:
    """Yield what people without a token do, from several addresses, or all from one."""
    half = request(
        "/api/activities", "", method="POST", more=f"Content-Length: {HALF_BODY}\r\n",
        body="x" * (HALF_BODY // 64),
    )  # fmt: skip
    nowhere = half.replace(b"/api/activities".hex(), b"/nowhere".hex())
    bad = upgrade("x").replace(b"token=".hex(), b"token=x".hex())
    head = b"GET / HTTP/1.1\r\nHost: x\r\nX-A: ".hex()

    def crowd(
        part: int,
        opening: str = "",
        messages: Sequence[str] = (),
        rate: float = 0.0,
        *,
        stays_s: float = 0.0,
        addresses: int = ADDRESSES,
    ) -> Crowd:
        return Crowd(
            number // part, opening, [*messages], rate, stays_s=stays_s, addresses=addresses
        )

    yield Case("silent", [crowd(1)])
    yield Case("silent, one address", [crowd(1, addresses=1)])
    yield Case("slow heads", [crowd(1, head, ["61"], 1)])
    yield Case("half bodies", [crowd(2, half), crowd(2, nowhere)])
    yield Case("bad tokens", [crowd(1, bad)])
    yield Case("bad tokens at once again", [crowd(1, bad, stays_s=0.05)])
    yield Case("of each", [crowd(4), crowd(4, head, ["61"], 1), crowd(4, half), crowd(4, bad)])


def encoded(case: Sequence[Crowd]) -> str:
    """Return crowds as the attacker reads them."""
    return json.dumps([vars(crowd) for crowd in case])
