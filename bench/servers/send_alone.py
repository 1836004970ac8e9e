"""What nobody can do without: one `send` to each subscriber, and nothing else.

It takes for granted that requests and frames come whole, and that every socket takes what it is
given. Usage: send_alone.py PORT
"""

import select
import socket
import sys

PUBLISH, DATA = b'{"type":"publish","data":', len(b'{"type":"publish","data":')


def unmasked(frames: bytes) -> list[bytes]:
    """Return the payloads of a client's frames."""
    found, at = [], 0
    while at < len(frames):
        size, at = frames[at + 1] & 127, at + 2
        if size == 126:
            size, at = int.from_bytes(frames[at : at + 2], "big"), at + 2
        mask, at = frames[at : at + 4], at + 4
        key = int.from_bytes(mask * (size // 4 + 1), "big") >> (8 * (4 - size % 4))
        found.append((int.from_bytes(frames[at : at + size], "big") ^ key).to_bytes(size, "big"))
        at += size
    return found


def framed(payload: bytes) -> bytes:
    """Return a server's text frame."""
    size = len(payload)
    return (bytes((0x81, size)) if size < 126 else b"\x81\x7e" + size.to_bytes(2, "big")) + payload


def main() -> None:
    """Serve until it is killed."""
    listening = socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=4096)
    polled = select.epoll()
    polled.register(listening, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    subscribers: list[socket.socket] = []
    while True:
        for number, _ in polled.poll():
            if number == listening.fileno():
                client, _ = listening.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                clients[client.fileno()] = client
                polled.register(client, select.EPOLLIN)
                continue
            client = clients[number]
            data = client.recv(1 << 20)
            if not data:
                polled.unregister(client)
                clients.pop(number).close()
            elif data.startswith(b"GET "):
                client.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            else:
                for payload in unmasked(data):
                    if not payload.startswith(PUBLISH):
                        client.sendall(framed(b'{"type":"subscribed"}'))
                        if b'"none"' not in payload:  # which is what publishers subscribe to
                            subscribers.append(client)
                        continue
                    frame = framed(b'{"type":"activity","data":' + payload[DATA:])
                    for subscriber in subscribers:
                        subscriber.send(frame)


if __name__ == "__main__":
    main()
