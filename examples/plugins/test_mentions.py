"""Who is mentioned is told, whoever was away too, and nobody twice."""

from pathlib import Path
from typing import Any

from pov_rt.testing import Client, Connect, RunningServer, make_settings


def say(client: Client, text: str) -> Any:
    data = {"type": "comment", "action": "created", "povId": "acme", "details": {"text": text}}
    return client.request({"type": "publish", "data": data})


def inbox(connect: Connect, user: str) -> Client:
    client = connect(user)
    client.request({"type": "subscribe_inbox"})
    return client


def test_who_is_mentioned_is_told_once(connect: Connect) -> None:
    ben = inbox(connect, "ben")
    say(connect("ana"), "@ben and @ben, look; I am @ana")
    say(connect("ana"), "@ben again")
    told = [ben.receive()["data"] for _ in range(2)]
    assert [each["details"]["text"][:10] for each in told] == ["@ben and @", "@ben again"]
    assert {each["userId"] for each in told} == {"ana"}


def test_a_mention_outlives_the_server(tmp_path: Path) -> None:
    settings = make_settings(engine={"url": f"sqlite://{tmp_path}/log.db"})
    plugin = [Path(__file__).with_name("mentions.py")]
    with RunningServer(settings, plugin) as server:
        say(server.connect("ana"), "@ben, while you are away")
    with RunningServer(settings, plugin) as server:
        ben = inbox(server.connect, "ben")
        assert ben.receive()["data"]["details"]["text"] == "@ben, while you are away"
