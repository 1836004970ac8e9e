"""The activity tracker for Django, synchronous and asynchronous.

MIDDLEWARE = [..., "pov_rt.tracker.django.ActivityTracker"]
POV_RT_TRACKER = {"url": "http://127.0.0.1:8765", "token": token, "rules": rules}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest

from pov_rt.tracker import neutral
from pov_rt.tracker.core import encode_path


class RequestTracker(neutral.ActivityTracker[HttpRequest]):
    """Reads Django's requests; the user is `request.user`, the session's."""

    is_async = False

    def path_of(self, request: HttpRequest) -> str:
        raw = request.META.get("RAW_URI") or request.META.get("REQUEST_URI")
        if (scope := getattr(request, "scope", None)) is not None:
            raw = (scope.get("raw_path") or b"").decode("latin-1")
        path: str = request.path
        return encode_path(path, raw, path.removesuffix(request.path_info))

    def arguments_of(self, request: HttpRequest) -> Mapping[str, Any]:
        return request.resolver_match.kwargs if request.resolver_match else {}

    def user_of(self, request: HttpRequest) -> Any:
        ask = getattr(request, "auser", None) if self.is_async else None
        return ask() if ask is not None else getattr(request, "user", None)


class ActivityTracker:
    """The middleware. Below `AuthenticationMiddleware`, it knows who signed in.

    The user is looked up only for a request that becomes an activity. `actor=` and `pov=` are
    called with Django's request; where Django is asynchronous they may be `async`, and must be if
    they ask the database.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        options = getattr(settings, "POV_RT_TRACKER", None)
        if not isinstance(options, dict) or not {"url", "token"} <= options.keys():
            raise ImproperlyConfigured("POV_RT_TRACKER is a dict with url, token, rules, ...")
        self.get_response = get_response
        self.tracker = RequestTracker(**options)
        self.outbox = self.tracker.outbox
        self.tracker.is_async = iscoroutinefunction(get_response)
        if self.tracker.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Answer a request: with a response, or a coroutine of one where Django is asynchronous."""
        if self.tracker.is_async:
            return self.tracker.activity_tracker(request, self.get_response)
        return self.tracker.activity_tracker_sync(request, self.get_response)
