"""The client's lines to a server: a WebSocket, or what stands in where there can be none."""

from pov_rt.client.lines.base import (
    PASSING,
    REFUSES,
    Line,
    Opener,
    TokenRefused,
    explain,
)
from pov_rt.client.lines.session import AnyLine

__all__ = ["PASSING", "REFUSES", "AnyLine", "Line", "Opener", "TokenRefused", "explain"]
