"""The command that says what a page pastes to have the browser SDK of this very server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape

import click

from pov_rt.cli.options import SettingsOptions, failure, say, settings_options
from pov_rt.version import VERSION
from pov_rt.web.routes.client import CORE, MODULE, SCRIPT, WIDGETS, File, read_files, widgets

DEFAULT_URL = "http://127.0.0.1:8765"
DOCS = "docs/widgets.md"

USE = """\
  const getToken = async () => {{
    const answer = await fetch({token}, {{credentials: 'include'}})
    if (answer.status === 401) return null // nobody is signed in
    if (!answer.ok) throw new Error(`no token: ${{answer.status}}`) // it is asked again later
    return (await answer.json()).token
  }}
  const client = {connect}({{url: {url}, getToken}})
  client.on('status', ({{state, reason = ''}}) => console.log(state, reason))
  client.subscribe('demo').on('activity', ({{activity}}) => console.log(activity))
"""


@click.command("client")
@settings_options
@click.option("--url", help=f"The server. Default: server.public_url, or {DEFAULT_URL}.")
def client(options: SettingsOptions, url: str | None) -> None:
    """Print what to paste into a page: the two tags, or the SDK alone, with hashes."""
    from pov_rt.cli.remote import parse_url

    files = read_files()
    if not {SCRIPT, MODULE, CORE, WIDGETS} <= files.keys():
        raise failure("the SDK is not built: run `npm ci` and `npm run build` in clients/js")
    base = parse_url(url or options.load().settings.server.public_url or DEFAULT_URL).http
    ways = [_as_tags(files, base), _as_script(files, base), _as_modules(files, base)]
    say("\n".join([*ways, _remark(base)]))


def _as_tags(files: Mapping[str, File], base: str) -> str:
    file = widgets(files)
    return (
        f"<!-- A feed and its toasts, {_size(file)}; panels load when they are opened.\n"
        f"  What can be set: {DOCS} -->\n"
        f'<script type="module" src="{escape(_address(base, file))}"\n'
        f'  integrity="{file.integrity}" crossorigin></script>\n'
        '<pov-team-activity pov="demo"></pov-team-activity>\n'
        "<pov-activity-notification></pov-activity-notification>\n"
    )


def _as_script(files: Mapping[str, File], base: str) -> str:
    file = files[SCRIPT]
    return (
        f"<!-- Or the SDK without the tags, in one file, {_size(file)}: -->\n"
        f'<script src="{escape(_address(base, file))}"\n'
        f'  integrity="{file.integrity}" crossorigin></script>\n'
        f"<script>\n{_use(base, 'PovRT.connect')}</script>\n"
    )


def _as_modules(files: Mapping[str, File], base: str) -> str:
    modules = {name: file for name, file in files.items() if name != SCRIPT}
    imports = {
        "imports": {
            "pov-rt": _address(base, files[MODULE]),
            "pov-rt/core": _address(base, files[CORE]),
            "pov-rt/widgets": _address(base, widgets(files)),
        },
        # Of what is imported later, too: a script tag's own attribute is for one file.
        "integrity": {_address(base, file): file.integrity for file in modules.values()},
    }
    return (
        f"<!-- Or as modules: pov-rt, {_size(files[MODULE])}; pov-rt/core, without createFeed,\n"
        f"  {_size(files[CORE])}; pov-rt/widgets, with the tags. The map has the hashes of\n"
        "  what loads later, too: panels, sharing a socket between tabs, the outbox. -->\n"
        f'<script type="importmap">\n{_json(imports, indent=2)}\n</script>\n'
        "<script type=\"module\">\n  import {connect} from 'pov-rt'\n"
        f"{_use(base, 'connect')}</script>\n"
    )


def _remark(base: str) -> str:
    return (
        f"<!-- Names and hashes are those of pov-rt {VERSION}: print them anew with each upgrade.\n"
        f"  {escape(base)}/client/{WIDGETS} is always the server's own, without a hash. -->"
    )


def _use(base: str, connect: str) -> str:
    token, url = _json(f"{base}/api/auth/ws-token"), _json(base)
    return USE.format(token=token, connect=connect, url=url)


def _json(value: object, indent: int | None = None) -> str:
    """Return JSON that does not end the script which it is in."""
    return json.dumps(value, indent=indent).replace("<", "\\u003c")


def _address(base: str, file: File) -> str:
    return f"{base}/client/{file.lasting}"


def _size(file: File) -> str:
    return f"{len(file.zipped) / 1024:.1f} KB gzipped"
