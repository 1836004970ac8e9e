"""Any plugin can tell another server, with what `pov_rt.plugin` has."""

from __future__ import annotations

from pathlib import Path

import pytest

from pov_rt.runtime.clock import full_jitter
from pov_rt.testing import RunningServer, make_settings
from tests.receivers import SECRET, is_signed, receive

PLUGIN = """
from collections.abc import AsyncIterator
from pov_rt.plugin import Activity, Host, Outbox, Part, Plugin, Published, WebhookOptions

class Options(WebhookOptions, frozen=True):
    only: str = ""

class Task(Part):
    pov_id: str

plugin = Plugin[Outbox[Task]]("tasks", options=Options, needs="url")

@plugin.lifespan
async def outbox(host: Host) -> AsyncIterator[Outbox[Task]]:
    made = Outbox[Task](host, host.options(Options))
    yield made
    await made.close()
    made.put(Task(pov_id="too late"))

@plugin.every(0.01)
async def deliver(host: Host[Outbox[Task]]) -> None:
    await host.state.deliver()

@plugin.published
def published(activity: Activity, done: Published, host: Host[Outbox[Task]]) -> None:
    if activity.type == host.options(Options).only:
        host.state.put(Task(pov_id=activity.pov_id))
"""


def test_a_plugin_of_ones_own_tells_of_its_own_things(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(PLUGIN)
    settings = make_settings()
    with receive() as receiver:
        settings.plugins["tasks"] = {"url": receiver.url, "secret": SECRET, "only": "task"}
        with RunningServer(settings, tmp_path) as server:
            ana = server.connect("ana")
            for kind, pov in (("task", "acme"), ("note", "other"), ("task", "third")):
                data = {"type": kind, "action": "done", "povId": pov}
                ana.request({"type": "publish", "data": data})
            found: list[str] = []
            while len(found) < 2:
                call = receiver.next()
                assert is_signed(call)
                assert call.json["node"] == server.web.server.node
                found += [each["povId"] for each in call.json["events"]]
            assert found == ["acme", "third"]
            counts = server.web.server.hooks.hosts["tasks"].counts
            while server.call(lambda: counts.get("events_sent")) != 2:
                pass
            server.run(server.web.server.hooks.stop)
            queue = {"events_queued": 2, "events_sent": 2, "events_dropped": 1}
            assert counts == {**queue, "calls_failed": 0}
            assert receiver.calls.empty()


def test_one_user_leaves_half_of_the_queue_to_the_others(tmp_path: Path) -> None:
    plugin = PLUGIN.replace(
        "host.options(Options))\n", "host.options(Options), lambda task: task.pov_id)\n"
    ).replace("@plugin.every(0.01)", "@plugin.every(3600)")
    (tmp_path / "tasks.py").write_text(plugin)
    settings = make_settings()
    with receive() as receiver:
        options = {"url": receiver.url, "secret": SECRET, "only": "task", "queue": 4}
        settings.plugins["tasks"] = options
        with RunningServer(settings, tmp_path) as server:
            ana = server.connect("ana")

            def publish(*povs: str) -> None:
                for pov in povs:
                    data = {"type": "task", "action": "done", "povId": pov}
                    ana.request({"type": "publish", "data": data})

            publish("a", "a", "a", "a", "b", "c")
            host = server.web.server.hooks.hosts["tasks"]
            (bound,) = (each for each in server.web.server.bounds if each.name == "tasks_queue")
            assert (bound.used(), bound.limit, bound.refused) == (4, 4, 2)
            server.run(lambda: host.state.deliver())
            events = receiver.next().json["events"]
            assert [each["povId"] for each in events] == ["a", "a", "b", "c"]
            publish("a", "a", "b", "b", "a", "c")  # the oldest goes for the last one
            server.run(lambda: host.state.deliver())
            events = receiver.next().json["events"]
            assert [each["povId"] for each in events] == ["a", "b", "b", "c"]
            publish("a")
            assert server.call(bound.used) == 1


@pytest.mark.parametrize(
    ("failures", "longest"), [(1, 0.5), (2, 1.0), (3, 2.0), (6, 16.0), (7, 30.0), (10_000, 30.0)]
)
def test_retries_come_within_a_limit_that_doubles(failures: int, longest: float) -> None:
    assert full_jitter(failures, 0.5, 30.0, 1.0) == longest
    assert full_jitter(failures, 0.5, 30.0, 0.0) == 0.0
