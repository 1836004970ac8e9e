"""Reactions are counted once for each user, shown to all, and outlive the server."""

from pathlib import Path
from typing import Any

from pov_rt.testing import Client, Connect, RunningServer, make_settings


def react(client: Client, emoji: str = "+1", *, on: bool = True) -> Any:
    message = {"type": "reactions.react", "povId": "acme", "activityId": "1", "emoji": emoji}
    return client.request({**message, "on": on})


def come(connect: Connect, user: str) -> Client:
    client = connect(user)
    client.request({"type": "subscribe", "povId": "acme"})
    return client


def test_each_user_counts_once_and_everybody_sees_it(connect: Connect) -> None:
    ana, ben = come(connect, "ana"), come(connect, "ben")
    assert react(ana)["counts"] == {"+1": 1}
    assert ben.receive()["counts"] == {"+1": 1}
    assert react(ana)["counts"] == {"+1": 1}
    assert react(ben)["counts"] == {"+1": 2}
    assert react(ben, "heart")["counts"] == {"+1": 2, "heart": 1}
    assert react(ben, on=False)["counts"] == {"+1": 1, "heart": 1}


def test_who_is_not_there_cannot_react(connect: Connect) -> None:
    assert react(connect("cy"))["code"] == "forbidden"


def test_reactions_outlive_the_server(tmp_path: Path) -> None:
    settings = make_settings(engine={"url": f"sqlite://{tmp_path}/log.db"})
    for count in (1, 2):
        with RunningServer(settings, [Path(__file__).with_name("reactions.py")]) as server:
            assert react(come(server.connect, f"u{count}"))["counts"] == {"+1": count}
