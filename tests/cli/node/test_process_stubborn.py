"""A server ends when it is told to, whatever its plugins do."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from websockets.sync.client import connect

from pov_rt.auth.grants import Kind
from pov_rt.auth.keys import Keyring
from pov_rt.auth.tokens import Tokens
from pov_rt.config.settings import AuthSettings
from pov_rt.runtime.clock import SystemClock
from tests.processes import COMMAND, SECRET, environment, read_until, running

PLUGIN = """
import asyncio
from pov_rt.plugin import Context, Host, Message, Plugin

plugin = Plugin("stubborn")

class Go(Message, tag="stubborn.go"):
    pass

async def stay():
    while True:
        try:
            await asyncio.sleep(1)
        except asyncio.CancelledError:
            pass

@plugin.on(Go)
async def go(message: Go, context: Context) -> None:
    await stay()

@plugin.every(0.01)
async def tick(host: Host) -> None:
    await stay()
"""


def test_a_plugin_that_refuses_to_be_cancelled_does_not_keep_the_process(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(PLUGIN)
    settings = AuthSettings(secrets=[SECRET])
    tokens = Tokens(settings, Keyring(settings, SystemClock()), SystemClock())
    token = tokens.issue(Kind.SOCKET, "ana", ttl_s=60)
    flags = ["--port", "0", "--admin-port", "0", "--plugins-dir", str(tmp_path)]
    with running(
        [*COMMAND, "serve", *flags, "--data", str(tmp_path / "data")],
        env={**environment(tmp_path), "POV_RT_AUTH__SECRETS": SECRET},
        cwd=tmp_path,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stderr is not None
        line = read_until(process.stderr, "listens on")
        port = "".join(c for c in line.rpartition(":")[2] if c.isdigit())
        with connect(f"ws://127.0.0.1:{port}/ws/?token={token}", proxy=None) as client:
            client.send('{"type":"stubborn.go"}')
            client.send('{"type":"ping"}')
            assert client.recv(timeout=30) == '{"type":"pong"}'
            process.send_signal(signal.SIGTERM)
            rest = process.stderr.read()
            assert process.wait(20) == 0
    assert "do not end although they are cancelled" in rest
    assert "Traceback" not in rest
