"""Producers' last numbers in memory: who has been given which, and when they are forgotten."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from pov_rt.config.settings import EngineSettings
from pov_rt.engine.copying import CopiedNumber, microseconds
from pov_rt.protocol.errors import Unavailable
from pov_rt.runtime.bounds import Bound
from pov_rt.runtime.clock import Clock


class Producer(NamedTuple):
    """Who numbers what it appends to a topic."""

    topic: str
    publisher: str
    name: str


class ProducerRules:
    """How long numbers are remembered, how many there are, and which part is one publisher's."""

    def __init__(self, settings: EngineSettings) -> None:
        self.age_s = max(settings.producer_age_s, settings.id_window_s)
        self.number = 0
        self.of_publisher: Counter[str] = Counter()
        """Not fewer than each has."""
        limit = settings.max_producers
        self.bound = Bound("producers", "engine.max_producers", limit, lambda: self.number)
        self.each = max(1, limit // 2)

    def add(self, publisher: str) -> None:
        """Count a producer in a topic that it was not in. Raises `Unavailable`."""
        if self.of_publisher[publisher] >= self.each:
            why = f"one publisher has {self.each} producers, half of engine.max_producers"
        elif self.number >= self.bound.limit:
            why = f"there are {self.number} producers, as many as engine.max_producers allows"
        else:
            self.number += 1
            self.of_publisher[publisher] += 1
            return
        self.bound.refuse(publisher, why)
        raise Unavailable(why)

    def drop(self, publisher: str) -> None:
        """Count one less."""
        self.number -= 1
        self.of_publisher[publisher] -= 1
        if self.of_publisher[publisher] <= 0:
            del self.of_publisher[publisher]


class MemoryProducers:
    """The last number of each producer in each topic."""

    def __init__(self, settings: EngineSettings, clock: Clock) -> None:
        self.rules = ProducerRules(settings)
        self._clock = clock
        # In the order of their last use, so that the oldest leave from the front.
        self._last: OrderedDict[Producer, tuple[int, float]] = OrderedDict()
        self._in_topic: Counter[str] = Counter()

    def has(self, topic: str) -> bool:
        """Tell whether any is remembered in a topic."""
        return topic in self._in_topic

    def last(self, producer: Producer) -> int:
        """Return the last number; 0 for none."""
        return self._last.get(producer, (0, 0.0))[0]

    def enter(self, producer: Producer) -> None:
        """Make room for a producer, if it is a new one. Raises `Unavailable`."""
        if producer not in self._last:
            self.rules.add(producer.publisher)
            self._in_topic[producer.topic] += 1
            self._last[producer] = (0, self._clock.monotonic())

    def keep(self, producer: Producer, seq: int) -> None:
        """Remember a number, unless a higher one is; of one that was entered."""
        self._last[producer] = max(seq, self.last(producer)), self._clock.monotonic()
        self._last.move_to_end(producer)

    def forget(self, now: float) -> None:
        """Forget those whose time is over; `now` is `Clock.monotonic`."""
        if not self._last:
            return
        not_after = now - self.rules.age_s
        while self._last:
            producer, (_, at) = next(iter(self._last.items()))
            if at > not_after:
                return
            self._drop(producer)

    def discard(self, unwanted: Callable[[Producer], bool]) -> None:
        """Forget some before their time is over."""
        for producer in [each for each in self._last if unwanted(each)]:
            self._drop(producer)

    def dump(self) -> Iterator[CopiedNumber]:
        """Yield all numbers."""
        self.forget(self._clock.monotonic())
        ahead = self._clock.time() - self._clock.monotonic()
        for producer, (seq, at) in self._last.items():
            yield CopiedNumber(*producer, seq, microseconds(at + ahead))

    def restore(self, numbers: Sequence[CopiedNumber]) -> None:
        """Take over numbers; `sort` is called behind the last ones. Raises `Unavailable`."""
        ahead = self._clock.time() - self._clock.monotonic()
        for topic, publisher, name, seq, at in numbers:
            producer = Producer(topic, publisher, name)
            self.enter(producer)
            self._last[producer] = seq, at / 1e6 - ahead

    def sort(self) -> None:
        """Have the numbers in the order of their use."""
        self._last = OrderedDict(sorted(self._last.items(), key=lambda each: each[1][1]))

    def _drop(self, producer: Producer) -> None:
        del self._last[producer]
        self.rules.drop(producer.publisher)
        self._in_topic[producer.topic] -= 1
        if not self._in_topic[producer.topic]:
            del self._in_topic[producer.topic]
