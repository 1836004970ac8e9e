"""The plugin as it is installed: the server finds it by its entry point."""

import pytest

from pov_rt.testing import Connect


@pytest.fixture
def pov_rt_options() -> dict[str, dict[str, int]]:
    return {"dice": {"sides": 1}}


def test_everybody_sees_what_was_thrown(connect: Connect) -> None:
    ana, ben = connect("ana"), connect("ben")
    for client in (ana, ben):
        client.request({"type": "subscribe", "povId": "acme"})
    assert ana.request({"type": "dice.throw", "povId": "acme", "dice": 2})["eyes"] == [1, 1]
    told = ben.receive()
    assert (told["type"], told["userId"], told["eyes"]) == ("dice.thrown", "ana", [1, 1])


def test_there_are_not_so_many_dice(connect: Connect) -> None:
    ana = connect("ana")
    ana.request({"type": "subscribe", "povId": "acme"})
    refused = ana.request({"type": "dice.throw", "povId": "acme", "dice": 11})
    assert (refused["code"], refused["field"]) == ("invalid_message", "dice")
