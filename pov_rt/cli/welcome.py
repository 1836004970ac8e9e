"""What a development server prints when it has started: where it is, and lines to paste."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from pathlib import Path

from msgspec.structs import replace

from pov_rt.config import load as config
from pov_rt.config.settings import AuthSettings, Settings
from pov_rt.registry.schema import address
from pov_rt.version import VERSION
from pov_rt.web.app import WebServer
from pov_rt.web.routes.console import dev_tokens

ACTIVITY = json.dumps(
    {"type": "task", "action": "completed", "povId": "demo", "userId": "ana"},
    separators=(",", ":"),
)
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (binds nothing)
DEFAULT_URL = "http://127.0.0.1:8765"


def welcome(web: WebServer) -> str:
    """Return what a developer wants to see first. Each line to paste works in any terminal."""
    settings, unix = web.settings, web.settings.server.unix
    socket_token, service_token = dev_tokens(web.server)
    host = EVERYWHERE.get(settings.server.host, settings.server.host)
    url = "http://localhost" if unix else f"http://{address(host, web.port)}"
    admin = address(settings.server.admin_host, web.admin_port)
    curl = f"curl -s {f'--unix-socket {shlex.quote(os.path.abspath(unix))} ' if unix else ''}{url}"
    with_curl = f"""
  {curl}/api/activities -H 'Content-Type: application/json' \\
    -H 'Authorization: Bearer {service_token}' \\
    -d '{ACTIVITY}'
"""
    rest = f"""
A client of your own connects to {url.replace("http", "ws", 1)}/ws/?token=TOKEN
(user 'dev', for a day) with this token:

  {socket_token}

Ctrl-C ends the server. It starts anew when a source or plugin file changes.
"""
    if unix:
        return f"""
pov-rt {VERSION} listens on the Unix socket {unix}, for a proxy
Health: http://{admin}/readyz

Publish to the PoV 'demo' in a second terminal:
{with_curl}{rest}"""
    program = how_to_start()
    console = ""
    if host in (*EVERYWHERE.values(), "localhost"):  # to others it gives no token
        console = (
            f"\n  Demo     {url}/demo  (in a browser: a board that two people share; break it)"
            f"\n  Console  {url}  (in a browser: a form for each message type, the live log)"
        )
    where = "" if url == DEFAULT_URL else f" --url {url}"
    tail, publish = f" --token {socket_token}", f" --token {service_token}"
    if is_kept(settings):
        folder = config.dev_secret_path(settings).parent.absolute()
        tail = publish = f" --data {shlex.quote(str(folder))}"
    return f"""
pov-rt {VERSION} listens on {url}
{console}
  Health   http://{admin}/readyz

1. Follow the PoV 'demo' in a second terminal:

  {program} tail demo{tail}{where}

2. Publish to it in a third one. The second one then shows: demo ana task.completed

  echo '{ACTIVITY}' |
    {program} publish{publish}{where}

   The same with curl:
{with_curl}{rest}"""


def how_to_start() -> str:
    """Return how to start this program from any folder and with any PATH, as a shell takes it."""
    started = Path(sys.argv[0])
    if started.suffix == ".py":
        return f"{shlex.quote(sys.executable)} -m pov_rt.cli"
    # What is in an environment's own folder is found only where that has been activated.
    folder = os.path.abspath(started.parent)
    in_environment = sys.prefix != sys.base_prefix and folder == os.path.join(sys.prefix, "bin")
    found = shutil.which(started.name)
    if found and not in_environment and os.path.abspath(found) == os.path.abspath(started):
        return started.name
    return shlex.quote(os.path.abspath(started))


def is_kept(settings: Settings) -> bool:
    """Tell whether other commands find the server's secret in its data folder."""
    bare = replace(settings, auth=AuthSettings())
    return config.kept_secret(bare).auth.secrets == settings.auth.secrets
