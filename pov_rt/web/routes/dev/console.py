"""Under --dev: what the console's page asks for. It is not there otherwise."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import msgspec

from pov_rt.auth.explain import explain
from pov_rt.auth.grants import Kind
from pov_rt.protocol.encoding import DECODE_ERRORS
from pov_rt.protocol.errors import InvalidRequest
from pov_rt.registry.build import Registry
from pov_rt.registry.problem import Problem
from pov_rt.registry.schema import asyncapi
from pov_rt.server.server import Server
from pov_rt.version import VERSION
from pov_rt.web.http import API_KINDS
from pov_rt.web.routes.dev.pages import LocalHandler

TOKEN_S = 86400.0
EVERYTHING = ("subscribe", "publish", "collaborate")
BUILT_IN = "built-in"


class Trouble:
    """What a developer is to be told of. Owner: the web server; `serve` says it."""

    problem: Problem | None = None


def dev_tokens(server: Server) -> tuple[str, str]:
    """Return a socket token and a service token for a day of trying things out."""
    issue = server.tokens.issue
    socket = issue(Kind.SOCKET, "dev", ttl_s=TOKEN_S, povs="*", can=EVERYTHING)
    return socket, issue(Kind.SERVICE, "dev-publisher", ttl_s=TOKEN_S, povs="*")


def describe_types(registry: Registry) -> dict[str, dict[str, Any]]:
    """Return of each message type whose it is, which grant it needs and what its author says."""
    origins = {
        found.plugin.name: BUILT_IN if found.origin == BUILT_IN else _origin(found.module, found)
        for found in registry.found
    }
    return {
        handler.tag: {
            "from": origins[handler.plugin.name],
            "grant": handler.spec.grant,
            "summary": first_sentence(handler.spec.message),
        }
        for handler in registry.handlers.values()
    }


def first_sentence(documented: Any) -> str:
    """Return the first sentence of a docstring, on one line."""
    text = " ".join((inspect.getdoc(documented) or "").partition("\n\n")[0].split())
    return text.partition(". ")[0].rstrip(".") + "." if text else ""


def _origin(module: Any, found: Any) -> str:
    if found.origin != "plugins-dir":
        return str(found.origin)
    path = Path(module.__file__ or "")
    return f"{path.parent.name}/{path.name}"


class ConsoleDataHandler(LocalHandler):
    """`GET /dev/console.json`: tokens, the messages' schemas and where they come from."""

    def get(self) -> None:
        """Send what the page needs."""
        token, service = dev_tokens(self.server)
        self.answer(
            {
                "version": VERSION,
                "token": token,
                "serviceToken": service,
                "can": EVERYTHING,
                "types": describe_types(self.server.registry),
                "schema": asyncapi(self.server.registry, self.server.settings),
            }
        )


class ProblemHandler(LocalHandler):
    """`GET /dev/problem.json`: the mistake in a file for which a change did not come into force.

    Asked for again and again; so it gives no token.
    """

    trouble: Trouble

    def get(self) -> None:
        """Send it, or null."""
        self.answer({"problem": self.trouble.problem})


class TokenText(msgspec.Struct):
    """A token that somebody wants to know about."""

    token: str


class TokenCheckHandler(LocalHandler):
    """`POST /dev/token`: what a token grants, or why it is refused. Nothing of it is logged."""

    BODIES = frozenset({"POST"})

    def authorize(self) -> None:
        """Ask for a token, the console's own: reasons for a refusal help to forge one."""
        self.authenticate(API_KINDS)
        self.pay()

    def post(self) -> None:
        """Explain it."""
        try:
            asked = msgspec.json.decode(self.content, type=TokenText)
        except DECODE_ERRORS as error:
            raise InvalidRequest('Send {"token": "..."}') from error
        self.answer(explain(asked.token, self.server.tokens, self.server.keyring))
