"""A board that its team sees live: FastAPI beside pov-rt.

In a checkout; the server and the app in a terminal each:

    pip install fastapi uvicorn itsdangerous pyjwt 'pov-rt[client]'
    pov-rt serve --dev
    POV_RT_SECRET=$(cat .dev/dev-secret) uvicorn --app-dir examples fastapi_app:app --port 8000

Open http://127.0.0.1:8000 in two browsers, sign in, and press the buttons.
"""

import os
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import jwt
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.middleware.sessions import SessionMiddleware

from pov_rt.client import NewActivity, Publisher
from pov_rt.tracker import ServiceToken, Track
from pov_rt.tracker.asgi import ActivityTracker

URL = os.environ.get("POV_RT_URL", "http://127.0.0.1:8765")
SECRET = os.environ["POV_RT_SECRET"]  # one of the server's `auth.secrets`; never in a page
POVS = {"ana": ["acme"], "ben": ["acme", "globex"]}  # yours: who there is, and may see what

as_service = ServiceToken(SECRET, "fastapi-app")
publisher = Publisher(URL, as_service, os.environ.get("SPOOL", "fastapi-app.spool"))


@asynccontextmanager
async def lifespan(_: FastAPI) -> AsyncIterator[None]:
    """Send what waits in the spool from before, too; what is left at the end waits there."""
    publisher.start()
    yield
    publisher.close()


app = FastAPI(lifespan=lifespan)
# Best effort: a request that was answered with 2xx becomes an activity, beside the response.
app.add_middleware(
    ActivityTracker,
    url=URL,
    token=as_service,
    rules=[Track("POST", "/povs/{pov_id}/tasks/{task_id}/done", type="task", action="completed")],
    actor=lambda scope: scope["session"].get("user"),
)
# Several workers need one secret.
app.add_middleware(SessionMiddleware, secret_key=os.getenv("APP_SECRET") or secrets.token_hex())


def user_of(request: Request, pov_id: str | None = None) -> str:
    """Return who is signed in and may see the PoV; the answer is 401 or 403 otherwise."""
    user = request.session.get("user")
    if user not in POVS:
        raise HTTPException(401)
    if pov_id is not None and pov_id not in POVS[user]:
        raise HTTPException(403)
    return str(user)


@app.post("/sign-in/{user}")
def sign_in(request: Request, user: str) -> RedirectResponse:
    """Take anybody's word for who they are: put your own way to sign in here."""
    if user not in POVS:
        raise HTTPException(404)
    request.session["user"] = user
    return RedirectResponse("/", 303)


@app.get("/ws-token")
def ws_token(request: Request, response: Response) -> dict[str, str]:
    """Sign a token for the socket of who is signed in; the page asks again before it ends."""
    user = user_of(request)
    response.headers["Cache-Control"] = "no-store"  # it is for one user
    claims = {"aud": "pov-rt.socket", "userId": user, "povs": POVS[user], "exp": time.time() + 900}
    return {"token": jwt.encode(claims, SECRET, "HS256")}


@app.post("/povs/{pov_id}/tasks/{task_id}/done")
def task_done(request: Request, pov_id: str, task_id: str) -> dict[str, str]:
    """Do what the app does; the tracker tells of it."""
    user_of(request, pov_id)
    return {"done": task_id}


@app.post("/povs/{pov_id}/decision", status_code=201)
async def decide(request: Request, pov_id: str) -> dict[str, str]:
    """Publish what must not be lost: it is on the disk before the answer, and sent until it is."""
    user = user_of(request, pov_id)
    activity = NewActivity(type="decision", action="made", pov_id=pov_id, user_id=user)
    return {"id": await publisher.apublish(activity)}


@app.get("/", response_class=HTMLResponse)
def page() -> str:
    """Show the two tags, which `pov-rt client` prints for your server, with the script's hash."""
    return f"""<!doctype html>
<html lang="en">
<title>Acme</title>
<script type="module" src="{URL}/client/pov-rt-widgets.mjs"></script>
<form method="post" action="/sign-in/ana"><button>Sign in as Ana</button></form>
<form method="post" action="/sign-in/ben"><button>Sign in as Ben</button></form>
<button onclick="fetch('/povs/acme/tasks/7/done', {{method: 'POST'}})">Task 7 is done</button>
<button onclick="fetch('/povs/acme/decision', {{method: 'POST'}})">Acme buys it</button>
<pov-team-activity pov="acme" token-url="/ws-token"></pov-team-activity>
<pov-activity-notification></pov-activity-notification>
"""
