"""No route of a plugin is in the shadow of another: it is refused at start."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from tornado.routing import PathMatches

from pov_rt.registry.build import build_registry
from pov_rt.registry.discovery import PluginError
from pov_rt.registry.paths import OWN, find_cover, pattern_of
from pov_rt.testing import make_settings
from pov_rt.web.app import WebServer
from pov_rt.web.routes.plugins import PluginHandler

ROUTE = """
@plugin.http({method!r}, {path!r}, grant="subscribe")
def route{number}(request: Request) -> None: ...
"""


def build(folder: Path, *routes: tuple[str, str]) -> None:
    made = [
        ROUTE.format(method=method, path=path, number=number)
        for number, (method, path) in enumerate(routes)
    ]
    head = "from pov_rt.plugin import Plugin, Request\nplugin = Plugin('mine')\n"
    (folder / "mine.py").write_text(head + "".join(made))
    build_registry({}, folder)


@pytest.mark.parametrize("path", OWN)
def test_a_path_of_the_server_is_refused_whatever_its_parts_are_called(
    path: str, tmp_path: Path
) -> None:
    for method in ("GET", "POST"):
        with pytest.raises(PluginError, match="is the server's own"):
            build(tmp_path, (method, path))
    if "{user_id}" in path:
        with pytest.raises(PluginError, match="is the server's own"):
            build(tmp_path, ("GET", path.replace("user_id", "name")))


def test_the_paths_of_the_server_are_those_that_it_serves() -> None:
    async def rules() -> list[re.Pattern[str]]:
        site = WebServer(make_settings(), build_registry({})).make_app()
        return [
            rule.matcher.regex
            for rule in site.wildcard_router.rules
            if isinstance(rule.matcher, PathMatches) and rule.target is not PluginHandler
        ]

    own = asyncio.run(rules())
    samples = {re.sub(r"{\w+}", "x", f"/api{path}") for path in OWN}
    for sample in samples:
        assert any(each.match(sample) for each in own), sample
    for each in own:
        if each.pattern.startswith("/api"):
            assert any(each.match(sample) for sample in samples), each.pattern


@pytest.mark.parametrize(
    ("path", "before", "found"),
    [
        ("/a/b", ["/a/{x}"], "/a/{x}"),
        ("/a/{x}", ["/a/{y}"], "/a/{y}"),
        ("/a/{x}", ["/a/b", "/{x}/b"], None),
        ("/a/b", ["/a", "/a/b/c", "/a/{x}/c"], None),
        ("/a/b/c", ["/{x}/b/{y}", "/a/b/c"], "/{x}/b/{y}"),
    ],
)
def test_a_path_is_covered_by_what_takes_all_of_its_requests(
    path: str, before: list[str], found: str | None
) -> None:
    assert find_cover(path, before) == found


def test_one_path_may_have_several_methods_and_be_beside_one_that_is_less_exact(
    tmp_path: Path,
) -> None:
    build(
        tmp_path, ("GET", "/a/b"), ("POST", "/a/b"), ("GET", "/a/{x}"), ("GET", "/povs/{pov_id}/b")
    )
    for second in (("POST", "/a/{y}"), ("POST", "/a/b")):
        with pytest.raises(PluginError, match=r"POST /a/.* would never be asked: /api/a/{x} takes"):
            build(tmp_path, ("GET", "/a/{x}"), second)


def test_a_pattern_names_the_parts() -> None:
    match = re.fullmatch(pattern_of("/povs/{pov_id}/tally"), "/povs/a%2Fb/tally")
    assert match is not None
    assert match.groupdict() == {"pov_id": "a%2Fb"}
