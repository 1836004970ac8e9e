"""Django with sessions and users in a database, and the tracker as its documentation shows it.

Each answer says in `X-Queries` how often the database was asked for it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from threading import Thread
from typing import Any

import django
from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.urls import path

from pov_rt.tracker import Track
from tests.tracker.apps.common import TOKEN, URL


class Counting:
    """Counts the queries of a request, in the thread that Django makes them in."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        if self.is_async:
            return self.answer(request)
        count, stop = self.start()
        response = self.get_response(request)
        stop()
        response["X-Queries"] = len(count)
        return response

    async def answer(self, request: HttpRequest) -> HttpResponse:
        count, stop = await sync_to_async(self.start)()
        response = await self.get_response(request)
        await sync_to_async(stop)()
        response["X-Queries"] = len(count)
        return response

    def start(self) -> tuple[list[str], Callable[[], None]]:
        count: list[str] = []
        stack = ExitStack()

        def note(execute: Any, sql: str, *rest: Any) -> Any:
            count.append(sql)
            return execute(sql, *rest)

        stack.enter_context(connection.execute_wrapper(note))
        return count, stack.close


def login(request: HttpRequest) -> HttpResponse:
    from django.contrib.auth import login
    from django.contrib.auth.models import User

    user, _ = User.objects.get_or_create(id=7, username="ana")
    login(request, user)
    return HttpResponse()


def answer(request: HttpRequest, pov_id: str) -> HttpResponse:
    return HttpResponse(status=409 if "fail" in request.GET else 200)


async def answer_async(request: HttpRequest, pov_id: str) -> HttpResponse:
    return answer(request, pov_id)


urlpatterns: list[Any] = []


def configure(view: Callable[..., Any]) -> None:
    urlpatterns[:] = [path("login", login), path("povs/<pov_id>", view)]
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DB"]}},
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
        ],
        MIDDLEWARE=[
            f"{__name__}.Counting",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "pov_rt.tracker.django.ActivityTracker",
        ],
        POV_RT_TRACKER={
            "url": URL,
            "token": TOKEN,
            "rules": [Track("DELETE", "/povs/{pov_id}", type="pov", action="removed")],
        },
        ROOT_URLCONF=__name__,
        SECRET_KEY="-",
    )
    django.setup(set_prefix=False)
    # A thread of its own, for Uvicorn calls this where Django allows no queries.
    migration = Thread(target=call_command, args=("migrate",), kwargs={"verbosity": 0})
    migration.start()
    migration.join()


def wsgi() -> Any:
    configure(answer)
    return WSGIHandler()


def asgi() -> Any:
    configure(answer_async)
    return ASGIHandler()
