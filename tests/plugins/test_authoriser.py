"""Another server is asked who may subscribe; nobody who is refused learns how that went."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from pov_rt.config.load import load, show
from pov_rt.config.settings import LimitSettings, SettingsError
from pov_rt.plugin import lookup
from pov_rt.plugins import authoriser
from pov_rt.registry.build import build_registry
from pov_rt.runtime.clock import ManualClock
from pov_rt.testing import Client, RunningServer, make_settings
from tests.receivers import SECRET, Call, Receiver, is_signed, receive

Run = Callable[..., RunningServer]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receive() as made:
        yield made


@pytest.fixture
def run(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """Start a server that asks the receiver, soon again when it was not there."""
    monkeypatch.setattr(authoriser, "DOWN_S", 0.05)
    with ExitStack() as running:

        def start(**options: Any) -> RunningServer:
            settings = make_settings(
                limits=LimitSettings(message_rate="10000/s", handler_deadline_s=60)
            )
            settings.plugins["authoriser"] = {"url": receiver.url, "secret": SECRET, **options}
            return running.enter_context(RunningServer(settings, None))

        yield start


def counts(server: RunningServer) -> dict[str, int]:
    return server.call(lambda: dict(server.web.server.hooks.hosts["authoriser"].counts))


def subscribe(client: Client, pov: str = "acme") -> str:
    answer = client.request({"type": "subscribe", "povId": pov})
    code: str = answer.get("code", answer["type"])
    return code


def test_the_authoriser_allows_and_denies_and_is_asked_once(run: Run, receiver: Receiver) -> None:
    server = run()
    ana = server.connect("ana", role="lead", team_id="red")
    assert subscribe(ana) == "subscribed"
    call = receiver.next()
    assert is_signed(call)
    assert call.json == {
        "userId": "ana",
        "povId": "acme",
        "action": "see",
        "role": "lead",
        "teamId": "red",
    }
    receiver.answers.put(403)
    for _ in range(2):
        refused = ana.request({"type": "subscribe", "povId": "other"})
        assert (refused["code"], refused["field"]) == ("forbidden", "povId")
    assert subscribe(ana) == "subscribed"
    assert subscribe(server.connect("ana", role="lead", team_id="red")) == "subscribed"
    assert receiver.next().json["povId"] == "other"
    assert receiver.calls.empty()
    assert subscribe(server.connect("ana", role="guest", team_id="red")) == "subscribed"
    assert receiver.next().json["role"] == "guest"


def test_what_the_token_does_not_cover_is_not_asked(run: Run, receiver: Receiver) -> None:
    server = run()
    assert subscribe(server.connect("ana", povs=["other"])) == "forbidden"
    assert receiver.calls.empty()


def test_an_answer_is_good_for_so_long(run: Run, receiver: Receiver) -> None:
    ana = run(ttl_s=0).connect("ana")
    assert subscribe(ana) == "subscribed"
    receiver.answers.put(403)
    assert subscribe(ana) == "forbidden"


def test_a_question_is_charged_to_whoever_asks_and_a_remembered_answer_is_not(
    receiver: Receiver,
) -> None:
    settings = make_settings(limits=LimitSettings(cost_rate="100/s"))
    settings.plugins["authoriser"] = {"url": receiver.url, "secret": SECRET}
    with RunningServer(settings, None, ManualClock()) as server:
        ana = server.connect("ana")

        def spent() -> float:
            return server.call(lambda: 100 * server.web.server.budgets.of("ana").paid_at)

        before = spent()
        assert subscribe(ana, "a") == "subscribed"
        assert spent() - before == pytest.approx(1 + lookup.PRICE, abs=0.05)
        before = spent()
        assert subscribe(ana, "a") == "subscribed"
        assert spent() - before == pytest.approx(1, abs=0.05)


def test_the_memory_of_answers_is_bounded(
    run: Run, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authoriser, "MAX_ANSWERS", 2)
    ana = run().connect("ana")
    for pov in ("a", "b", "c", "b", "c", "a"):
        assert subscribe(ana, pov) == "subscribed"
    asked = [receiver.next().json["povId"] for _ in range(4)]
    assert asked == ["a", "b", "c", "a"]
    assert receiver.calls.empty()


def test_the_same_question_is_asked_once_though_the_first_asker_leaves(
    run: Run, receiver: Receiver
) -> None:
    server = run()
    first, second = server.connect("ana"), server.connect("ana")
    receiver.open.clear()
    for client in (first, second):
        client.send({"type": "subscribe", "povId": "acme"})
    receiver.next()
    assert second.request({"type": "ping"})["type"] == "pong"
    first.socket.close()
    while server.call(lambda: len(server.web.server.directory)) > 1:
        pass
    receiver.open.set()
    assert second.receive()["type"] == "subscribed"
    assert receiver.calls.empty()


@pytest.mark.parametrize("status", [500, 404, 302])
def test_an_answer_that_is_neither_yes_nor_no_is_none(
    run: Run, receiver: Receiver, status: int
) -> None:
    server = run()
    ana = server.connect("ana")
    receiver.answers.put(status)
    assert subscribe(ana) == "unavailable"
    assert subscribe(ana) == "subscribed"
    assert counts(server) == {"questions_asked": 2, "questions_failed": 1}


def test_an_authoriser_that_is_down_refuses_until_it_is_back(run: Run, receiver: Receiver) -> None:
    receiver.stop()
    ana = run().connect("ana")
    answer = ana.request({"type": "subscribe", "povId": "acme"})
    assert (answer["code"], answer["retryAfter"]) == ("unavailable", 0.05)
    assert "127.0.0.1" not in json.dumps(answer)
    receiver.start()
    while (code := subscribe(ana)) == "unavailable":
        pass
    assert code == "subscribed"


def test_several_povs_are_asked_about_at_the_same_time_and_answered_in_order(
    run: Run, receiver: Receiver
) -> None:
    server = run()
    ana = server.connect("ana")
    receiver.open.clear()
    povs = [f"pov{number}" for number in range(20)]
    ana.send({"type": "subscribe", "povIds": povs})
    asked = [receiver.next().json["povId"] for _ in range(authoriser.ASKING_EACH)]
    receiver.open.set()
    asked += [receiver.next().json["povId"] for _ in povs[authoriser.ASKING_EACH :]]
    assert sorted(asked) == sorted(povs)
    assert receiver.most_at_once == authoriser.ASKING_EACH
    answer = ana.receive()
    assert [each["povId"] for each in answer["results"]] == povs
    assert not any("code" in each for each in answer["results"])
    assert receiver.calls.empty()
    assert server.call(lambda: server.web.server.hub.subscriptions) == len(povs)


def test_one_that_does_not_answer_is_not_waited_for_at_each_pov(
    run: Run,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(authoriser, "ASK_S", 0.2)
    monkeypatch.setattr(authoriser, "DOWN_S", 60.0)
    server = run()
    ana = server.connect("ana")
    receiver.open.clear()
    povs = [f"pov{number}" for number in range(100)]
    answer = ana.request({"type": "subscribe", "povIds": povs})
    assert {each["code"] for each in answer["results"]} == {"unavailable"}
    assert counts(server)["questions_asked"] == authoriser.ASKING_EACH
    assert receiver.calls.qsize() <= authoriser.ASKING_EACH


def test_one_user_about_whom_it_is_silent_does_not_make_it_down_for_others(
    run: Run, receiver: Receiver, without_eve: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authoriser, "ASK_S", 0.1)
    monkeypatch.setattr(authoriser, "DOWN_S", 60.0)
    server = run()
    eve = server.connect("eve")
    for pov in ("slow", "slower"):
        assert subscribe(eve, pov) == "unavailable"
    assert counts(server)["questions_asked"] == 1
    assert subscribe(server.connect("ana")) == "subscribed"


def test_it_is_down_for_all_when_it_is_silent_about_several(
    run: Run, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authoriser, "DOWN_S", 60.0)
    receiver.stop()
    server = run()
    for number in range(authoriser.DOWN_USERS + 3):
        assert subscribe(server.connect(f"user{number}")) == "unavailable"
    assert counts(server)["questions_asked"] == authoriser.DOWN_USERS


def test_who_waits_for_others_questions_for_too_long_is_refused_but_nobody_is_down(
    run: Run,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(authoriser, "MAX_ASKING", 1)
    monkeypatch.setattr(lookup, "WAIT_S", 0.2)
    ana = run().connect("ana")
    receiver.open.clear()
    answer = ana.request({"type": "subscribe", "povIds": ["a", "b"]})
    assert {each["code"] for each in answer["results"]} == {"unavailable"}
    receiver.open.set()
    monkeypatch.undo()
    assert subscribe(ana, "c") == "subscribed"


@pytest.fixture
def without_eve(receiver: Receiver) -> Iterator[None]:
    """Answer everybody but eve, who waits for the end."""
    over = threading.Event()

    def decide(call: Call) -> int:
        if call.json["userId"] == "eve":
            over.wait()
        return 204

    receiver.decide = decide
    yield
    over.set()


@pytest.mark.usefixtures("without_eve")
def test_who_asks_a_lot_keeps_nobody_waiting_and_pushes_nobody_out(
    run: Run, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authoriser, "ASK_S", 60.0)
    server = run()
    ana, ben = server.connect("ana"), server.connect("ben")
    assert subscribe(ana) == "subscribed"
    # All at first: once she has asked for much, she may be let in no more.
    *many, last = [server.connect("eve") for _ in range(34)]
    for number, eve in enumerate(many):
        povs = [f"pov{number}-{each}" for each in range(200)]
        eve.send({"type": "subscribe", "povIds": povs})
    asking = server.web.server.hooks.hosts["authoriser"].state
    while server.call(lambda: asking.asking) < 256:
        pass
    assert subscribe(ben) == "subscribed"
    assert subscribe(ana, "other") == "subscribed"
    assert subscribe(server.connect("ana")) == "subscribed"
    asked = [receiver.next().json for _ in range(receiver.calls.qsize())]
    by_user = [each["userId"] for each in asked]
    assert by_user.count("eve") == authoriser.ASKING_EACH
    assert by_user.count("ana") == 2
    assert subscribe(last) == "rate_limited"
    (bound,) = [each for each in server.web.server.bounds if each.name == "authoriser_questions"]
    assert server.call(bound.used) == 256
    assert bound.refused > 0


def test_who_is_subscribed_is_asked_about_again_and_told_of_a_no(receiver: Receiver) -> None:
    clock = ManualClock()
    settings = make_settings()
    settings.plugins["authoriser"] = {"url": receiver.url, "secret": SECRET}
    with RunningServer(settings, None, clock) as server:
        ana = server.connect("ana")
        ana.request({"type": "subscribe", "povIds": ["acme", "*"], "durable": True})
        receiver.decide = lambda call: 403 if call.json["povId"] == "acme" else 204

        def pass_ttl() -> None:
            clock.advance(61)
            server.web.server.permissions.sweep(clock.monotonic())

        server.call(pass_ttl)
        told = ana.receive()
        assert (told["type"], told["povId"], told["code"]) == ("unsubscribed", "acme", "forbidden")
        assert ana.request({"type": "history", "povId": "acme"})["code"] == "forbidden"
        results = ana.request({"type": "resume"})["results"]
        assert [(each["povId"], each.get("code")) for each in results] == [
            ("*", None),
            ("acme", "forbidden"),
        ]
        data = {"type": "t", "action": "a", "povId": "other"}
        ana.request({"type": "publish", "data": data})
        assert [each["feed"] for each in ana.early if each["type"] == "activity"] == ["*"]


def test_the_end_lets_go_of_what_is_being_asked(run: Run, receiver: Receiver) -> None:
    server = run()
    ana = server.connect("ana")
    receiver.open.clear()
    ana.send({"type": "subscribe", "povId": "acme"})
    receiver.next()
    ana.socket.close()
    while server.call(lambda: len(server.web.server.directory)):
        pass
    answers = server.web.server.hooks.hosts["authoriser"].state
    assert server.call(lambda: answers.asking) == 1
    server.run(server.web.server.hooks.stop)
    assert answers.asking == 0


# The settings:


def test_without_a_url_nobody_is_asked_at_any_subscription() -> None:
    with RunningServer(make_settings(), None) as server:
        plugins = server.web.server.hooks
        assert "authoriser" not in plugins.hosts
        assert not server.web.server.permissions.asks
        (hooks,) = [
            found.plugin.hooks
            for found in server.web.server.registry.idle
            if found.plugin.name == "authoriser"
        ]
        assert [name for name, _, _ in hooks] == ["authorise"]


def test_the_secret_is_in_no_log_and_not_shown(
    run: Run, receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for status in (500, 204):
        receiver.answers.put(status)
    server = run()
    ana = server.connect("ana")
    assert [subscribe(ana) for _ in range(2)] == ["unavailable", "subscribed"]
    server.run(server.web.server.hooks.stop)
    assert SECRET not in caplog.text
    for name in ("webhooks", "authoriser"):
        file = tmp_path / "pov-rt.toml"
        file.write_text(f'[plugins.{name}]\nurl = "{receiver.url}"\nsecret = "{SECRET}"\n')
        shown = {name: text for name, text, _ in show(load(file=file, flags={}, environ={}))}
        assert shown[f"plugins.{name}.secret"] == '"****"'


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"url": "http://x"}, "set secret or secret_file"),
        ({"url": "http://x", "secret": "short and secret"}, "at least 32 bytes"),
        ({"ttl_s": -1}, "ttl_s"),
        ({"batch": 1}, "no such option"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(SettingsError, match=problem) as refused:
        build_registry({"authoriser": options})
    assert "short and secret" not in str(refused.value)
