"""The browser SDK on Node, against a real server that is killed and started again."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.request import Request, urlopen

import jwt
from tornado.testing import bind_unused_port

from tests.js import CLIENT, SDK, node
from tests.processes import SECRET, Served, end, running, serve, take_pipe


def token_of(user: str, **claims: Any) -> str:
    given = {"userId": user, "exp": int(time.time()) + 3600, **claims}
    return jwt.encode(given, SECRET, algorithm="HS256")


class Follower:
    """What a client on Node said, as it says it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[list[Any]] = []
        self._more = threading.Condition()
        stdout = take_pipe(process, "stdout")
        threading.Thread(target=self._read, args=[stdout], daemon=True).start()

    def _read(self, stdout: IO[str]) -> None:
        with stdout:
            for line in stdout:
                with self._more:
                    self.said.append(json.loads(line))
                    self._more.notify()

    def until(self, holds: Callable[[], bool]) -> None:
        with self._more:
            assert self._more.wait_for(holds, timeout=40), self.said

    def of(self, kind: str) -> list[list[Any]]:
        return [rest for first, *rest in self.said if first == kind]

    def is_in(self, state: str) -> bool:
        return bool(self.of("status")) and self.of("status")[-1][0] == state

    def publish(self, number: int) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()


@contextmanager
def follow(tmp_path: Path, url: str) -> Iterator[Follower]:
    program = tmp_path / "follow.mjs"
    esbuild = str(CLIENT / "node_modules/.bin/esbuild")
    # `ws` asks for Node's own modules in the way of CommonJS.
    banner = "import{createRequire}from'node:module';const require=createRequire(import.meta.url)"
    options = ("--bundle", "--format=esm", "--platform=node", "--log-level=warning")
    subprocess.run(
        [esbuild, "test/follow.ts", *options, f"--banner:js={banner}", f"--outfile={program}"],
        cwd=CLIENT,
        check=True,
    )
    with running(
        [node(SDK), program],
        env={"PATH": os.environ["PATH"], "POV_URL": url, "POV_TOKEN": token_of("ana", can=GRANTS)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        yield Follower(process)


GRANTS = ["subscribe", "publish"]


def ask(served: Served, path: str, body: Any = None) -> Any:
    headers = {
        "Authorization": f"Bearer {token_of('app', aud='pov-rt.service')}",
        "Content-Type": "application/json",
    }
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(served.url + path, data, headers)) as answer:
        return json.load(answer)


def publish(served: Served, start: int, number: int) -> None:
    fields = {"type": "task", "action": "completed", "povId": "acme", "userId": "bo"}
    ask(served, "/api/activities", [{"id": f"app-{start + n}", **fields} for n in range(number)])


def test_killed_again_and_again_each_activity_is_given_once_and_in_order(tmp_path: Path) -> None:
    taken, port = bind_unused_port()
    taken.close()
    given = {"POV_RT_AUTH__SECRETS": SECRET, "POV_RT_ENGINE__URL": "sqlite://"}
    rounds, each = 4, 5
    sent = 2 * each * rounds
    with follow(tmp_path, f"http://127.0.0.1:{port}") as follower:
        for number in range(1, rounds + 1):
            # Made while there is no server: kept, and sent by whichever connection comes.
            follower.publish(each)
            with serve(tmp_path, "--port", str(port), **given) as served:
                publish(served, number * 100, each)
                follower.publish(0)  # it tries at once, whatever it waits for
                follower.until(lambda: follower.is_in("live"))
                follower.publish(each)
                publish(served, number * 100 + 50, each)
                if number == rounds:
                    follower.until(lambda: len(follower.of("published")) == sent)
                    follower.until(lambda: len(follower.of("activity")) == 2 * sent)
                    activities = ask(served, "/api/povs/acme/activities?limit=1000")["activities"]
                end(served.process)
            follower.until(lambda: not follower.is_in("live"))
    log = [[activity["data"]["id"], activity["offset"]] for activity in activities]
    assert follower.of("activity") == log
    own = [name for name, _ in log if name.startswith("own-")]
    assert own == [f"own-{n}" for n in range(1, sent + 1)]
    assert follower.of("published") == [place for place in log if place[0].startswith("own-")]
    assert follower.of("gap") == follower.of("error") == follower.of("refused") == []
    assert follower.of("pending")[-1] == [0]
