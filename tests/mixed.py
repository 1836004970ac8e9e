"""`scripts/check_mixed`: nodes of another version and of this one together on one Redis.

Publishers and clients are on both nodes while each is upgraded and downgraded, one after the other:
a step has a node of either version, or two of one. What was acknowledged has to be in the log once,
to come to each client once and in order, over every restart, and nobody is said to have left.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import venv
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

from bench.storm import POV, Crowd, Ledger, place_of, sign
from tests.node_processes import NodeProcess
from tests.processes import COMMAND, SECRET
from tests.redis_servers import HOW, find_program, redis_running
from tests.watching import Watcher

ROOT = Path(__file__).parent.parent
PROGRAM = "redis-server"
CLIENTS = 40
AT_LEAST = 20
"""Activities that are acknowledged between two restarts."""
PAGE = 1000


class Versions(NamedTuple):
    """How a node of each version is started."""

    other: Sequence[str]
    this: Sequence[str] = COMMAND


class Seen(NamedTuple):
    """What was seen in the end."""

    ledger: Ledger
    behind: int
    """Clients that do not have all."""
    ids: Sequence[Sequence[str]]
    """The ids in the log, as each node reads it."""
    left: Sequence[str]
    """Who was said to have left."""


def find_problems(seen: Seen) -> list[str]:
    """Say what should not have been; nothing, if all is well."""
    ledger, acknowledged = seen.ledger, len(seen.ledger.acknowledged)
    found = [
        (ledger.lost, "entries did not come to a client"),
        (ledger.doubled, "entries came to a client twice"),
        (ledger.gaps, "positions did not hold over a restart"),
        (ledger.untold, "connections ended without a word"),
        (seen.behind, "clients do not have all"),
        (len(seen.left), "times somebody was said to have left"),
    ]
    for number, ids in enumerate(seen.ids, 1):
        twice = sum(count - 1 for count in Counter(ids).values())
        found.append((twice, f"activities are in the log twice, as node {number} reads it"))
        lost = acknowledged - len(set(ids))
        found.append((max(0, lost), f"are acknowledged and not there, as node {number} reads it"))
    return [f"{count} {words}" for count, words in found if count]


def read_ids(port: int) -> list[str]:
    """Return the ids of all that is in the log, as a node reads it."""
    token = sign(SECRET, "app", povs="*", aud="pov-rt.service", can=["subscribe"])
    found: list[str] = []
    after = 0
    while True:
        request = Request(
            f"http://127.0.0.1:{port}/api/povs/{POV}/activities?after={after}&limit={PAGE}",
            headers={"Authorization": f"Bearer {token}"},
        )
        with urlopen(request, timeout=30) as answer:
            entries = json.loads(answer.read())["activities"]
        if not entries:
            return found
        found += [each["data"]["id"] for each in entries]
        after = entries[-1]["offset"]


async def play(
    nodes: Sequence[NodeProcess], versions: Versions, clients: int, most: int | None
) -> Seen:
    """Change the versions of two nodes that run, one after the other, under a crowd on both."""
    places = [place_of(f"ws://127.0.0.1:{each.port}") for each in nodes]
    one, two = nodes
    steps = [
        ("upgrade", one, versions.this),
        ("downgrade", two, versions.other),
        ("downgrade", one, versions.other),
        ("upgrade", two, versions.this),
    ]
    async with Crowd(places, SECRET, clients, Watcher) as crowd:
        for name, node, command in steps[:most]:
            await crowd.until(acknowledged=AT_LEAST)
            back = len(crowd.ledger.downs) + node.sockets()
            await asyncio.to_thread(node.stop)
            await asyncio.to_thread(node.start, command)
            await crowd.until_back(back)
            number = 1 + nodes.index(node)
            acknowledged = len(crowd.ledger.acknowledged)
            print(f"{name} of node {number}: {acknowledged:,} acknowledged so far", flush=True)
        await crowd.until(acknowledged=AT_LEAST)
        behind = await crowd.settle()
        ids = [await asyncio.to_thread(read_ids, each.port) for each in nodes]
        left = [who for each in crowd.clients if isinstance(each, Watcher) for who in each.left]
        return Seen(crowd.ledger, len(behind), ids, left)


def run(folder: Path, versions: Versions, clients: int, most: int | None = None) -> Seen:
    """Run one Redis and two nodes for one play: the first of the other version, and one of this.

    `most` is how many restarts there are at most.
    """
    assert find_program(PROGRAM) is not None, HOW[PROGRAM]
    with ExitStack() as stack:
        redis = stack.enter_context(redis_running(PROGRAM, folder / "redis"))
        nodes = [NodeProcess(folder / name, redis.url) for name in ("node-1", "node-2")]
        for node, command in zip(nodes, versions, strict=True):
            stack.callback(node.kill)
            node.start(command)
        return asyncio.run(play(nodes, versions, clients, most))


def git(*arguments: str) -> str:
    """Return what git prints. Raises `CalledProcessError`."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@contextmanager
def installed(ref: str, folder: Path) -> Iterator[list[str]]:
    """Install a commit in a folder for the block; return how its commands begin."""
    tree = folder / "tree"
    git("worktree", "add", "--detach", str(tree), ref)
    try:
        venv.create(folder / "venv", with_pip=True)
        python = str(folder / "venv/bin/python")
        print(f"installing {git('describe', '--always', '--tags', ref)} ...", flush=True)
        install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*install, f"{tree}[redis]"], check=True)
        yield [python, "-m", "pov_rt.cli"]
    finally:
        git("worktree", "remove", "--force", str(tree))


def main() -> int:
    """Return 0 if nothing was lost, doubled or said that is not so."""
    parser = argparse.ArgumentParser(prog="scripts/check_mixed", description=__doc__)
    parser.add_argument("ref", nargs="?", help="the other version (default: the newest tag)")
    parser.add_argument("--clients", type=int, default=CLIENTS, help=f"default {CLIENTS}")
    given = parser.parse_args()
    ref = given.ref or git("tag", "--sort=-creatordate").partition("\n")[0]
    if not ref:
        parser.error("there is no tag yet: name the commit before the change, such as HEAD~1")
    with tempfile.TemporaryDirectory(prefix="check-mixed-") as name:
        folder = Path(name)
        with installed(ref, folder) as other:
            seen = run(folder / "nodes", Versions(other), given.clients)
    problems = find_problems(seen)
    for each in problems:
        print(each)
    ledger = seen.ledger
    print(
        f"\n{ref} and this version: {len(ledger.acknowledged):,} acknowledged, {ledger.lost} lost, "
        f"{ledger.doubled} twice, {len(ledger.downs)} times a client came back"
    )
    return int(bool(problems))


if __name__ == "__main__":
    sys.exit(main())
