"""From an accepted socket to the 101, for what may become a WebSocket.

A well-formed upgrade takes the short way: its head is read here, and no HTTP server, request or
handler is made for it. All else, whatever is unusual or wrong, takes the long way by Tornado, with
the bytes that were read, and is answered there. Both ways ask the same `Entry`. The short one takes
half the CPU (docs/measurements.md, connects).
"""
