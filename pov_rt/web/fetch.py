"""HTTP requests out, for plugins and for the keys of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.iostream import IOStream
from tornado.netutil import Resolver
from tornado.simple_httpclient import SimpleAsyncHTTPClient
from tornado.tcpclient import TCPClient

from pov_rt.plugin.interfaces import Response
from pov_rt.protocol.errors import Unavailable

MAX_FETCHED_BYTES = 1024 * 1024


class _Lines(TCPClient):
    """Opens connections that are closed with it: Tornado's client leaves a request under way."""

    def __init__(self, resolver: Resolver) -> None:
        super().__init__(resolver)
        self._streams: list[IOStream] | None = []

    async def connect(self, *place: Any, **options: Any) -> IOStream:
        stream = await super().connect(*place, **options)
        if self._streams is None:  # it was closed meanwhile
            stream.close()
        else:
            self._streams.append(stream)
        return stream

    def close(self) -> None:
        super().close()
        streams, self._streams = self._streams or (), None
        for stream in streams:
            stream.close()


async def fetch(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_s: float = 5.0,
) -> Response:
    """Make an HTTP request, bounded in time and size; redirects are not followed.

    If this is cancelled, so is the request.
    """
    client = SimpleAsyncHTTPClient(force_instance=True, max_body_size=MAX_FETCHED_BYTES)
    client.tcp_client = _Lines(client.resolver)
    request = HTTPRequest(
        url,
        method=method,
        headers=dict(headers or {}),
        body=body,
        request_timeout=timeout_s,
        connect_timeout=timeout_s,
        follow_redirects=False,
        allow_nonstandard_methods=True,
    )
    try:
        answer = await client.fetch(request, raise_error=False)
    except (OSError, HTTPClientError, ValueError) as error:
        raise Unavailable(f"no answer from {url.partition('?')[0]}: {error}") from error
    finally:
        client.close()
    if answer.code == 599:
        raise Unavailable(f"no answer from {url.partition('?')[0]}: {answer.error}")
    return Response(answer.code, dict(answer.headers.get_all()), answer.body or b"")
