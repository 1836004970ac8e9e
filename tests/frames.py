"""Frames as clients send them."""

from __future__ import annotations

from pov_rt.transport.frames import FIN, LENGTH_16, LENGTH_64, MASKED, xor_mask


def masked_frame(
    opcode: int, payload: bytes, *, fin: bool = True, mask: bytes = b"\x37\xfa\x21\x3d"
) -> bytes:
    """Return a frame, legal or not."""
    first, size = (FIN if fin else 0) | opcode, len(payload)
    if size < LENGTH_16:
        header = bytes((first, MASKED | size))
    elif size < 1 << 16:
        header = bytes((first, MASKED | LENGTH_16)) + size.to_bytes(2)
    else:
        header = bytes((first, MASKED | LENGTH_64)) + size.to_bytes(8)
    return header + mask + xor_mask(mask, payload)
