"""The page, its token, and two things that people do."""

import time

import jwt
from django.conf import settings
from django.contrib.auth import get_user_model, login
from django.core.exceptions import PermissionDenied
from django.db import connection, transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST

from board.models import Decision
from pov_rt.client import NewActivity, Outbox

POVS = {"ana": ["acme"], "ben": ["acme", "globex"]}  # yours: who there is, and may see what


def povs_of(request: HttpRequest) -> list[str]:
    """Return what who is signed in may see."""
    return POVS.get(request.user.get_username(), [])


@require_POST
def sign_in(request: HttpRequest, user: str) -> HttpResponse:
    """Take anybody's word for who they are: put your own way to sign in here."""
    if user not in POVS:
        raise Http404
    login(request, get_user_model().objects.get_or_create(username=user)[0])
    return redirect("page")


@never_cache  # a token is for one user
def ws_token(request: HttpRequest) -> HttpResponse:
    """Sign a token for the socket of who is signed in; the page asks again before it ends."""
    if not request.user.is_authenticated:
        return HttpResponse(status=401)
    claims = {"aud": "pov-rt.socket", "userId": request.user.get_username()}
    claims |= {"povs": povs_of(request), "exp": time.time() + 900}
    return JsonResponse({"token": jwt.encode(claims, settings.POV_RT_SECRET, "HS256")})


@require_POST
def task_done(request: HttpRequest, pov_id: str, task_id: str) -> HttpResponse:
    """Do what the app does; the tracker tells of it."""
    if pov_id not in povs_of(request):
        raise PermissionDenied
    return redirect("page")


@require_POST
def decide(request: HttpRequest, pov_id: str) -> HttpResponse:
    """Publish what must not be lost: if the decision is committed, and never if it is not."""
    if pov_id not in povs_of(request):
        raise PermissionDenied
    user = request.user.get_username()
    with transaction.atomic():
        Decision.objects.create(pov_id=pov_id, made_by=user)
        activity = NewActivity(type="decision", action="made", pov_id=pov_id, user_id=user)
        Outbox.add(connection, activity)
    return redirect("page")


def page(request: HttpRequest) -> HttpResponse:
    """Show the two tags."""
    return render(request, "board/page.html", {"rt": settings.POV_RT_URL, "people": list(POVS)})
