"""The Python client as a program that docs/clients.md describes."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import msgspec

from pov_rt.client import Gap, Only, Position, PovClient, PovError, Refused, Status, Subscription

STATES = {"open": "online", "connecting": "offline", "waiting": "offline", "closed": "closed"}


def say(shows: str, **fields: Any) -> None:
    print(json.dumps({"shows": shows, **fields}), flush=True)


def show_status(status: Status) -> None:
    say("status", state=STATES[status.state])


def place(position: Position | None) -> dict[str, Any] | None:
    return None if position is None else position._asdict()


def show_gap(gap: Gap) -> None:
    since, to = place(gap.since), place(gap.to)
    say("gap", povId=gap.pov_id, **{"from": since}, to=to, missed=gap.missed)


async def follow(following: Subscription) -> None:
    pov = following.pov_id
    try:
        async for each in following:
            activity = msgspec.to_builtins(each)
            epoch, offset = activity.pop("epoch"), activity.pop("offset")
            say("activity", povId=pov, epoch=epoch, offset=offset, activity=activity)
    except Refused as error:
        say("ended", povId=pov, code=error.code)
    except PovError:
        pass  # the client has ended, which its status says


async def ask(client: PovClient, name: str, message: dict[str, Any]) -> None:
    try:
        say("answer", name=name, message=await client.request(message))
    except Refused as error:
        say("answer", name=name, code=error.code)


async def main() -> None:
    first = json.loads(await asyncio.to_thread(sys.stdin.readline))
    tokens: list[str] = first["tokens"]

    def token() -> str:
        return tokens.pop(0) if len(tokens) > 1 else tokens[0]

    client = PovClient(first["url"], token, on_status=show_status)
    async with client, asyncio.TaskGroup() as tasks:
        while (line := json.loads(await asyncio.to_thread(sys.stdin.readline)))["do"] != "close":
            if line["do"] == "request":
                tasks.create_task(ask(client, line["name"], line["message"]))
                continue
            since = line.get("since")
            following = client.subscribe(
                line["povId"],
                since=Position(**since) if since else None,
                only=msgspec.convert(line["only"], Only) if "only" in line else None,
                on_gap=show_gap,
            )
            tasks.create_task(follow(following))
        await client.close()


asyncio.run(main())
