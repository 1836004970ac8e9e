"""People for the benchmark: a process that comes and goes, or types, at fixed instants.

`python -m bench.crowd PORT MODE SECONDS REPEAT < clients.json`, the clients being a list of hex:
what each sends to be served. It prints how many were served.
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


def come_and_go(port: int, openings: list[bytes], seconds: float) -> int:
    """Open one after the other, spread over so many seconds; each leaves after `STAY_S`."""
    began, count = time.monotonic(), 0
    there: deque[tuple[float, socket.socket]] = deque()
    for index, opening in enumerate(openings):
        wait_until(began + seconds * index / len(openings))
        now = time.monotonic()
        there.append((now + STAY_S, connect(port, opening)))
        while there[0][0] <= now:
            count += leave(there.popleft()[1])
    while there:
        until, sock = there.popleft()
        wait_until(until)
        count += leave(sock)
    return count


def leave(sock: socket.socket) -> bool:
    """Close, if it was served."""
    good = served(sock)
    sock.close()
    return good


def type_on(port: int, openings: list[bytes], seconds: float, typing: bytes) -> int:
    """Have everybody type once a second."""
    people = [connect(port, opening) for opening in openings]
    count = sum(map(served, people))
    for sock in people:
        sock.setblocking(False)
    print("ready", flush=True)
    began = time.monotonic()
    for index in range(int(seconds * len(people))):
        wait_until(began + index / len(people))
        sock = people[index % len(people)]
        sock.send(typing)
        try:
            while sock.recv(1 << 16):
                pass
        except BlockingIOError:
            pass
    for sock in people:
        sock.close()
    return count


def main() -> None:
    """Run the crowd."""
    port, mode, seconds, repeat = sys.argv[1:]
    openings = [bytes.fromhex(each) for each in json.load(sys.stdin)]
    if mode == "typing":
        print(type_on(int(port), openings, float(seconds), bytes.fromhex(repeat)), flush=True)
    else:
        print(come_and_go(int(port), openings, float(seconds)), flush=True)


if __name__ == "__main__":
    main()
