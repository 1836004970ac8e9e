"""HTTP requests out, for plugins and for the keys of tokens."""

from __future__ import annotations

from collections.abc import Mapping

from tornado.httpclient import AsyncHTTPClient, HTTPClientError, HTTPRequest

from pov_rt.plugin.interfaces import Response
from pov_rt.protocol.errors import Unavailable

MAX_FETCHED_BYTES = 1024 * 1024


async def fetch(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    timeout_s: float = 5.0,
) -> Response:
    """Make an HTTP request, bounded in time and size; redirects are not followed."""
    client = AsyncHTTPClient(force_instance=True, max_body_size=MAX_FETCHED_BYTES)
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
