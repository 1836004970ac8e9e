"""The demo as an app of its own: its routes, and which of its requests are activities."""

from __future__ import annotations

import json
from http.client import responses
from typing import Any, Protocol

import msgspec
from tornado.web import Application, HTTPError, RequestHandler

from pov_rt.tracker import Track
from pov_rt.tracker.tornado import ActivityTracker
from pov_rt.web.demo.board import Board, Refused, Unknown
from pov_rt.web.demo.content import PEOPLE, burst

API = "/demo/api"
USER = "Demo-User"
"""The header in which a page says whose it is: an app of one's own has a session for that."""
BURST = 1000
MAX_WAITING = 5 * BURST
"""So many activities wait at most to be published when another burst is asked for."""

NEWS = frozenset({200, 201})
"""Other answers say that nothing changed, such as those to a request that was sent twice."""
RULES = [
    Track("PUT", f"{API}/povs/{{pov_id}}/tasks/{{task}}", "task", "created", NEWS),
    Track("PUT", f"{API}/povs/{{pov_id}}/tasks/{{task}}/done", "task", "completed", NEWS),
    Track("DELETE", f"{API}/povs/{{pov_id}}/tasks/{{task}}/done", "task", "reopened", NEWS),
    Track("PUT", f"{API}/povs/{{pov_id}}/phase/{{to}}", "phase", "changed", NEWS),
]


class Node(Protocol):
    """What the demo asks of the server that it is there to show."""

    def token(self, user_id: str) -> str:
        """Return a socket token for the demo's proofs of value."""

    async def end_tokens(self, user_id: str) -> None:
        """Make the user's tokens void, and end the connections that were opened with them."""

    def restart(self) -> bool:
        """Have the server start anew; return whether it can."""

    async def tell_beginning(self) -> None:
        """Publish what the board begins with, once; it is in the log then."""


def make_app(board: Board, tracker: ActivityTracker, node: Node, **settings: Any) -> Application:
    """Return the app, watched by the tracker."""
    parts = {"board": board, "tracker": tracker, "node": node}
    routes: list[tuple[str, type[Handler]]] = [
        ("/board", BoardHandler),
        ("/token", TokenHandler),
        ("/povs/([^/]+)/tasks/([a-z0-9-]{1,40})", TaskHandler),
        ("/povs/([^/]+)/tasks/([^/]+)/done", DoneHandler),
        ("/povs/([^/]+)/phase/([^/]+)", PhaseHandler),
        ("/burst", BurstHandler),
        ("/end-token", EndTokenHandler),
        ("/restart", RestartHandler),
        ("/reset", ResetHandler),
    ]
    app = Application([(API + path, kind, parts) for path, kind in routes], **settings)
    return tracker.wrap(app)


class Handler(RequestHandler):
    """The base of them all: JSON, and who asks."""

    def initialize(self, board: Board, tracker: ActivityTracker, node: Node) -> None:
        """Take the parts from the routing table."""
        self.board, self.tracker, self.node = board, tracker, node

    def set_default_headers(self) -> None:
        """Have nothing stored."""
        self.clear_header("Server")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Content-Type", "application/json")
        self.set_header("X-Content-Type-Options", "nosniff")

    def get_current_user(self) -> str | None:
        """Return whose page it is that asks."""
        user = self.request.headers.get(USER)
        return user if user in PEOPLE else None

    def prepare(self) -> None:
        """Refuse whoever is nobody. A page of another origin cannot send the header."""
        if self.current_user is None:
            raise HTTPError(401, f"say in {USER} who you are")

    def done(self, *, is_news: bool, status: int = 200) -> None:
        """Answer that it was done, or that it had been."""
        self.set_status(status if is_news else 204)
        if is_news:
            self.write("{}")

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """Say what is wrong, in the words of what was raised."""
        cause = (kwargs.get("exc_info") or (None, None, None))[1]
        words = cause.log_message if isinstance(cause, HTTPError) else None
        if isinstance(cause, Unknown):
            self.set_status(404)
        elif isinstance(cause, Refused):
            self.set_status(409)
            words = str(cause)
        self.finish(json.dumps({"error": words or responses.get(self.get_status(), "Unknown")}))

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Log what is our fault; what the asker was told is no news to us."""
        if not isinstance(value, HTTPError | Unknown | Refused):
            super().log_exception(typ, value, tb)


class BoardHandler(Handler):
    """`GET /board`: all of it."""

    async def get(self) -> None:
        """Send it. The log of a server where nobody looks at the demo has nothing of it."""
        await self.node.tell_beginning()
        self.finish(msgspec.json.encode(self.board.view()))


class TokenHandler(Handler):
    """`GET /token`: a socket token for whoever asks."""

    def get(self) -> None:
        """Make one."""
        self.write({"token": self.node.token(str(self.current_user))})


class TaskHandler(Handler):
    """`PUT /povs/ID/tasks/ID`: a new task."""

    def put(self, pov_id: str, task_id: str) -> None:
        """Add it, once."""
        try:
            title = json.loads(self.request.body)["title"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise HTTPError(400, "send a title") from error
        who = str(self.current_user)
        is_news = self.board.add_task(pov_id, task_id, str(title), who)
        self.done(is_news=is_news, status=201)


class DoneHandler(Handler):
    """`PUT` and `DELETE /povs/ID/tasks/ID/done`."""

    def put(self, pov_id: str, task_id: str) -> None:
        """Have it done."""
        self.done(is_news=self.board.set_done(pov_id, task_id, done=True))

    def delete(self, pov_id: str, task_id: str) -> None:
        """Have it open again."""
        self.done(is_news=self.board.set_done(pov_id, task_id, done=False))


class PhaseHandler(Handler):
    """`PUT /povs/ID/phase/NAME`."""

    def put(self, pov_id: str, phase: str) -> None:
        """Move there."""
        self.done(is_news=self.board.move(pov_id, phase))


class BurstHandler(Handler):
    """`POST /burst`: 1,000 activities by several people."""

    def post(self) -> None:
        """Have the tracker publish them."""
        if self.tracker.outbox.queued > MAX_WAITING:
            raise HTTPError(503, "The last ones are still being sent")
        for activity in burst(BURST):
            self.tracker.outbox.put(activity)
        self.set_status(202)
        self.write({"activities": BURST})


class EndTokenHandler(Handler):
    """`POST /end-token`: the sender's tokens are void from now on."""

    async def post(self) -> None:
        """End them."""
        await self.node.end_tokens(str(self.current_user))
        self.write("{}")


class RestartHandler(Handler):
    """`POST /restart`: the server starts anew, this app in it."""

    def post(self) -> None:
        """Answer, and go."""
        if not self.node.restart():
            raise HTTPError(503, "Only `pov-rt serve` can start anew")
        self.set_status(202)
        self.write("{}")


class ResetHandler(Handler):
    """`POST /reset`: the board begins anew; the log keeps what was."""

    def post(self) -> None:
        """Begin."""
        self.board.reset()
        self.write("{}")
