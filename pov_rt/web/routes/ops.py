"""For operators, on a port of its own: is it alive, is it ready, how is it doing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from pov_rt.server.server import Server
from pov_rt.version import VERSION
from pov_rt.web.http import JsonHandler

LAG_TICK_S = 0.25
LAG_MEMORY_S = 30.0


class LoopLag:
    """How late the event loop does what is due. Owner: the web server, from `start` to `stop`."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._worst = self._worst_before = 0.0
        self._since = self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def worst_s(self) -> float:
        """The longest delay of the last 30 to 60 seconds, in which somebody will have asked."""
        return max(self._worst, self._worst_before)

    def start(self) -> None:
        """Begin to look, four times a second."""
        self._since = self._loop.time()
        self._wait()

    def stop(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        self._due = self._loop.time() + LAG_TICK_S
        self._timer = self._loop.call_at(self._due, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        self._worst = max(self._worst, now - self._due)
        if now - self._since >= LAG_MEMORY_S:
            self._worst_before, self._worst, self._since = self._worst, 0.0, now
        self._wait()


class Counters(Collector):
    """Reads a server's own counters when asked, so that counting costs the hot path nothing.

    `others` yields those that the server does not know of.
    """

    def __init__(self, server: Server, others: Callable[[], Iterable[Metric]]) -> None:
        self._server = server
        self._others = others

    def collect(self) -> Iterable[Metric]:
        """Yield every metric."""
        server, hub = self._server, self._server.hub
        yield gauge("ready", "1 if clients are welcome", int(server.not_ready() is None))
        info = GaugeMetricFamily("pov_rt_build_info", "The version", labels=["version", "node"])
        info.add_metric([VERSION, server.node], 1)
        yield info
        yield gauge("connections", "Open sockets", len(server.directory))
        yield gauge("subscriptions", "Subscriptions of all sockets", hub.subscriptions)
        yield gauge("answers_standing", "Asked for again in time", server.permissions.standing)
        yield gauge("topics", "Topics followed", hub.topics)
        yield gauge("answers_expected", "Publications to be answered in the stream", hub.expected)
        yield gauge("tokens_remembered", "Tokens not verified anew", server.tokens.remembered)
        yield gauge("log_waiting_bytes", "What waits to be written", server.engine.waiting_bytes)
        size = GaugeMetricFamily("pov_rt_log_bytes", "Size of the log's files", labels=["file"])
        for name, count in server.engine.log_bytes.items():
            size.add_metric([name], count)
        yield size
        yield counter("connections_opened", "Sockets opened", server.arrivals.opened)
        yield counter("activities_published", "Activities published", server.publishing.published)
        yield counter("messages_delivered", "Messages handed to sockets", hub.delivered)
        yield by_label("messages", "Messages handled", "type", server.dispatcher.counts)
        yield by_label("errors", "Errors answered", "code", server.dispatcher.errors)
        yield by_label("closes", "Sockets closed", "reason", server.arrivals.closes)
        used = GaugeMetricFamily("pov_rt_bound_used", "What of a bound is in use", labels=["bound"])
        limit = GaugeMetricFamily("pov_rt_bound_limit", "How much there is", labels=["bound"])
        refused = CounterMetricFamily(
            "pov_rt_bound_refused", "Refused at a bound or a share of it", labels=["bound"]
        )
        for bound in server.bounds:
            used.add_metric([bound.name], bound.used())
            limit.add_metric([bound.name], bound.limit)
            refused.add_metric([bound.name], bound.refused)
        yield from (used, limit, refused)
        plugins = CounterMetricFamily(
            "pov_rt_plugin", "What plugins count", labels=["plugin", "name"]
        )
        for host in server.hooks.hosts.values():
            for name, count in host.counts.items():
                plugins.add_metric([host.name, name], count)
        yield plugins
        conduct = server.hooks.conduct
        failures = CounterMetricFamily(
            "pov_rt_plugin_failures", "What plugins did wrong", labels=["plugin", "kind"]
        )
        for labels, count in conduct.counts.items():
            failures.add_metric(labels, count)
        off = GaugeMetricFamily(
            "pov_rt_plugin_off", "Plugins that are off for their failures", labels=["plugin"]
        )
        for name in server.hooks.hosts:
            off.add_metric([name], int(name in conduct.off))
        yield from (failures, off)
        yield from self._others()


def gauge(name: str, text: str, value: float) -> Metric:
    """Return a number that goes up and down."""
    return GaugeMetricFamily(f"pov_rt_{name}", text, value)


def counter(name: str, text: str, value: float) -> Metric:
    """Return a number that only goes up."""
    return CounterMetricFamily(f"pov_rt_{name}", text, value)


def by_label(name: str, text: str, label: str, counts: Mapping[str, int]) -> Metric:
    """Return a counter for each value of a label."""
    family = CounterMetricFamily(f"pov_rt_{name}", text, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


class HealthHandler(JsonHandler):
    """`GET /healthz`: the loop runs."""

    def get(self) -> None:
        """Answer 200."""
        self.answer({"status": "ok"})


class ReadyHandler(JsonHandler):
    """`GET /readyz`: clients are welcome (200), or why not (503); which plugins are off."""

    def get(self) -> None:
        """Answer the state."""
        reason = self.server.not_ready()
        off = self.server.hooks.conduct.off
        more = {"plugins": {name: f"off: {why}" for name, why in off.items()}} if off else {}
        if reason is None:
            self.answer({"status": "ready", **more})
        else:
            self.answer({"status": "not ready", "reason": reason, **more}, 503)


class MetricsHandler(JsonHandler):
    """`GET /metrics` in Prometheus' text format."""

    metrics: Collector

    def get(self) -> None:
        """Answer all metrics."""
        self.set_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.finish(generate_latest(self.metrics))
