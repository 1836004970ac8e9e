"""The HTTP routes of plugins, below /api."""

from __future__ import annotations

import msgspec

from pov_rt.dispatch.request import PluginRequest
from pov_rt.protocol.errors import ClientError, NotFound
from pov_rt.protocol.messages import check_id
from pov_rt.registry.build import Registry, Route
from pov_rt.registry.paths import pattern_of
from pov_rt.registry.pov_ids import names_id
from pov_rt.runtime import containment
from pov_rt.web.http import API_KINDS, SERVICE, JsonHandler, parse_query


def plugin_paths(registry: Registry) -> dict[str, dict[str, Route]]:
    """Return the routes by path pattern and method."""
    paths: dict[str, dict[str, Route]] = {}
    for route in registry.routes:
        paths.setdefault(f"/api{pattern_of(route.spec.path)}", {})[route.spec.method] = route
    return paths


class PluginHandler(JsonHandler):
    """One path with a plugin behind each of its methods."""

    CORS_METHODS = "GET, POST, PUT, PATCH, DELETE"

    routes: dict[str, Route]

    def takes_body(self) -> bool:
        """Tell whether the route of this method declares a body."""
        route = self.routes.get(self.request.method or "")
        return route is not None and route.spec.body is not None

    async def authorize(self, **path: str) -> None:
        """Ask for a token as the route wants it, and check the ids in the path."""
        spec = self._route.spec
        identity = self.authenticate(SERVICE if spec.service else API_KINDS)
        self.pay(spec.price)
        identity.grants.require(spec.grant)
        path = self._scope(path)
        if "pov_id" in path:
            await self.server.permissions.require(identity, path["pov_id"], spec.grant)
        if "user_id" in path:
            check_id(path["user_id"], "userId")

    async def get(self, **path: str) -> None:
        """Hand the request to the plugin."""
        route = self._route
        host = self.server.hooks.hosts.get(route.plugin.name)
        if host is None:
            raise NotFound
        query = dict(parse_query(self.request.query))
        path = self._scope(path)
        request = PluginRequest(host, self.identity, route.spec, path, query, self.content)
        await request.admit()
        deadline_s = self.server.settings.limits.handler_deadline_s
        function, conduct = route.spec.function, self.server.hooks.conduct
        conduct.require(host.name)
        try:
            result = await containment.call(function, request, deadline_s=deadline_s)
            _check_result(route, result)
        except ClientError:
            raise
        except Exception as error:
            user = self.identity.user_id
            raise conduct.failed(host.name, function, "route", error, user=user) from error
        if conduct.streaks:
            conduct.succeeded(function)
        if result is None:
            self.set_status(204)
        else:
            self.answer(result)

    @property
    def _route(self) -> Route:
        method = self.request.method or ""
        return self.routes["GET" if method == "HEAD" else method]

    def _scope(self, path: dict[str, str]) -> dict[str, str]:
        scope = self.identity.grants.scope
        return {name: scope(text) if names_id(name) else text for name, text in path.items()}

    post = put = patch = delete = get


def _check_result(route: Route, result: object) -> None:
    """Raise TypeError for what a handler may not return."""
    if result is not None and not isinstance(result, msgspec.Struct):
        raised = "; raise it" if isinstance(result, BaseException) else ", no struct"
        raise TypeError(
            f"{route.spec.source}: the handler returned {type(result).__name__}{raised}"
        )
