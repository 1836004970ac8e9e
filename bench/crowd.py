"""People for the benchmark: a process that comes and goes, or types, at fixed instants.

`python -m bench.crowd PORT MODE SECONDS FRAME... < clients.json`, the clients being a list of hex:
what each sends to be served. The frames, hex too, are what each sends in one second and the next
when it types. It prints how many were served, and the seconds until all had come, or typed.
"""

from __future__ import annotations

import json
import socket
import sys
import time
from collections import deque

STAY_S = 2.0
SERVED = b'{"type":"present"'


def connect(port: int, opening: bytes) -> socket.socket:
    """Connect and send what opens and subscribes; the answers are read later."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=30)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(opening)
    return sock


def served(sock: socket.socket) -> bool:
    """Tell whether the client was served by now."""
    sock.settimeout(10)
    found = b""
    while SERVED not in found:
        more = sock.recv(1 << 16)
        if not more:
            return False
        found += more
    return True


def wait_until(instant: float) -> None:
    """Sleep until an instant of the monotonic clock."""
    while (left := instant - time.monotonic()) > 0:
        time.sleep(left)


def come_and_go(port: int, openings: list[bytes], seconds: float) -> tuple[int, float]:
    """Open one after the other, spread over so many seconds; each leaves after `STAY_S`.

    Returns how many were served and when the last had come.
    """
    began, count = time.monotonic(), 0
    there: deque[tuple[float, socket.socket]] = deque()
    for index, opening in enumerate(openings):
        wait_until(began + seconds * index / len(openings))
        now = time.monotonic()
        there.append((now + STAY_S, connect(port, opening)))
        while there[0][0] <= now:
            count += leave(there.popleft()[1])
    took = time.monotonic() - began
    while there:
        until, sock = there.popleft()
        wait_until(until)
        count += leave(sock)
    return count, took


def leave(sock: socket.socket) -> bool:
    """Close, if it was served."""
    good = served(sock)
    sock.close()
    return good


def type_on(
    port: int, openings: list[bytes], seconds: float, frames: list[bytes]
) -> tuple[int, float]:
    """Have everybody type once a second, one frame after the other, so that it is always news."""
    people = [connect(port, opening) for opening in openings]
    count = sum(map(served, people))
    for sock in people:
        sock.setblocking(False)
    print("ready", flush=True)
    began = time.monotonic()
    for index in range(int(seconds * len(people))):
        wait_until(began + index / len(people))
        second, person = divmod(index, len(people))
        sock = people[person]
        sock.send(frames[second % len(frames)])
        try:
            while sock.recv(1 << 16):
                pass
        except BlockingIOError:
            pass
    took = time.monotonic() - began
    for sock in people:
        sock.close()
    return count, took


def main() -> None:
    """Run the crowd."""
    port, mode, seconds, *given = sys.argv[1:]
    frames = [bytes.fromhex(each) for each in given]
    openings = [bytes.fromhex(each) for each in json.load(sys.stdin)]
    if mode == "typing":
        count, took = type_on(int(port), openings, float(seconds), frames)
    else:
        count, took = come_and_go(int(port), openings, float(seconds))
    print(count, f"{took:.2f}", flush=True)


if __name__ == "__main__":
    main()
