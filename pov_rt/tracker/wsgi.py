"""The activity tracker for WSGI: Flask and all others.

app.wsgi_app = ActivityTracker(app.wsgi_app, "http://127.0.0.1:8765", token, rules)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from typing_extensions import Unpack

from pov_rt.tracker import neutral
from pov_rt.tracker.core import Options, Track, encode_path
from pov_rt.tracker.sender import Token

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
App = Callable[..., Iterable[bytes]]


class EnvironTracker(neutral.ActivityTracker[Environ]):
    """Reads a request's environ; the user is `REMOTE_USER`."""

    def method_of(self, request: Environ) -> str:
        return str(request["REQUEST_METHOD"])

    def path_of(self, request: Environ) -> str:
        root, path = (_decode(request.get(name, "")) for name in ("SCRIPT_NAME", "PATH_INFO"))
        return encode_path(root + path, request.get("RAW_URI") or request.get("REQUEST_URI"), root)

    def arguments_of(self, request: Environ) -> Mapping[str, Any]:
        if (flask := request.get("werkzeug.request")) is not None:
            return getattr(flask, "view_args", None) or {}
        named: Mapping[str, Any] = request.get("wsgiorg.routing_args", ((), {}))[1]
        return named

    def user_of(self, request: Environ) -> Any:
        return request.get("REMOTE_USER")

    def header_of(self, request: Environ, name: str) -> str | None:
        found: str | None = request.get(f"HTTP_{name.upper().replace('-', '_')}")
        return found


class ActivityTracker:
    """Watches the requests of an application.

    `actor=`, `pov=` and `describe=` are called, with the environ, when the application begins its
    response: what belongs to the request in it, as Flask's `session` and `g`, is still there. The
    activity is sent when the server closes the response, and not if the application breaks it off.
    """

    def __init__(
        self,
        app: App,
        url: str,
        token: Token,
        rules: Sequence[Track] = (),
        **options: Unpack[Options],
    ) -> None:
        self.app = app
        self.tracker = EnvironTracker(url, token, rules, **options)
        self.outbox = self.tracker.outbox

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer a request."""
        with self.tracker.traced(environ):
            return self._answer(environ, start_response)

    def _answer(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        watch = self.tracker.begin(environ)
        if watch is None:
            return self.app(environ, start_response)

        def start(status: str, *arguments: Any) -> Callable[[bytes], object]:
            watch.choose(int(status[:3]))
            return start_response(status, *arguments)

        try:
            answer = self.app(environ, start)
        except Exception:
            watch.choose(500)
            watch.send()
            raise
        wrapper = environ.get("wsgi.file_wrapper")
        if hasattr(answer, "read") or (isinstance(wrapper, type) and isinstance(answer, wrapper)):
            watch.send()  # the server knows its own by being it, and may copy it without reading
            return answer
        return (_WatchedList if hasattr(answer, "__len__") else _Watched)(answer, watch)


class _Watched:
    """An application's answer, which a server iterates over and closes."""

    def __init__(self, answer: Iterable[bytes], watch: neutral.Watch) -> None:
        self._answer: Any = answer
        self._watch = watch

    def __iter__(self) -> Iterator[bytes]:
        has_begun = False
        try:
            for piece in self._answer:
                has_begun = True
                yield piece
        except Exception:
            if has_begun:
                self._watch.forget()
            else:
                self._watch.choose(500)  # which is what the server answers, for nothing is sent yet
            raise

    def close(self) -> None:
        """Close the application's answer, and have the activity sent."""
        try:
            if (close := getattr(self._answer, "close", None)) is not None:
                close()
        finally:
            self._watch.send()


class _WatchedList(_Watched):
    """One whose parts are counted: of a single one a server tells the length."""

    def __len__(self) -> int:
        return len(self._answer)


def _decode(text: str) -> str:
    """Return what a server took for Latin-1, as WSGI has it (PEP 3333)."""
    return text.encode("latin-1").decode("utf-8", "replace")
