"""Members: clients that do all that a client may, and know at any time what they may be sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any
from zlib import crc32

from tests.checker.activities import Activity, checksum, decode_activity, decode_push
from tests.checker.clients import LOST, PASSING, connect, wait_s
from tests.checker.courses import EVERYTHING, Entered, Filter
from tests.checker.digests import find_digest_problem
from tests.checker.habits import HABITS, Habit
from tests.checker.polling import wait_until
from tests.checker.reading import Mark
from tests.checker.records import Kept, Place
from tests.checker.requests import Request
from tests.checker.voices import Voice

PLAIN_TYPES = ("subscribed", "unsubscribed", "pong", "error", "activity")
"""What a client without the subprotocol is sent."""
PAUSE_S = (0.05, 0.4)
"""How long a member waits before it does something more."""
AGAIN_S = 0.1
SETTLE_S = 0.2


class Member(Voice):
    """One client of the side team. Owner: the run."""

    async def run(self) -> None:
        """Be connected, until it is cancelled."""
        loop, device = asyncio.get_running_loop(), self.character.device
        while True:
            self._forget()
            token, plain = self._token, self.character.plain
            try:
                self.socket = await connect(
                    self._port, token, self._receive, device=device, plain=plain
                )
            except LOST as error:
                if "HTTP/1.1 401" in str(error) and token == self._token:
                    self.note("refused", f"was refused with a good token: {error}")
            else:
                self._begin()
                while not self.socket.lost.done():
                    await asyncio.wait([self.socket.lost], timeout=self.random.uniform(*PAUSE_S))
                    if loop.time() >= self._paused_until and not self.socket.lost.done():
                        self._act()
                self.closes.append(self.socket.close_code)
            await asyncio.sleep(self.random.uniform(0.01, 0.05))

    async def settle(self) -> None:
        """Wait until everything that it published has its answer."""
        await wait_until(lambda: not self.unanswered)

    async def catch_up(self, targets: Mapping[str, int]) -> None:
        """Wait until everything up to these offsets has come."""
        while True:
            behind = [
                topic
                for topic in self.granted
                if topic not in self.current or self.reached[topic].offset < targets[topic]
            ]
            if not behind and not self._requests:
                return
            for topic in behind:
                if topic in self.current and not self._requests:
                    # With a filter only an answer, or a position, says how far it is.
                    self.subscribe(topic, self.current[topic])
            await asyncio.sleep(SETTLE_S)

    def check_end(self) -> None:
        """Check what it must have been told by now, if it is still connected."""
        for topic, course in self._courses.items():
            course.ended = topic not in self.current
        if self.socket is None or self.socket.lost.done() or self.character.plain:
            return
        for topic in self.current:
            for user, mark in self.readings.marks(topic).items():
                heard = self._heard.get((topic, user), 0)
                if heard < mark.offset and mark.at > self._entered_at[topic]:
                    text = f"was not told that {user} has read {topic} up to {mark.offset}"
                    self.note("receipts", f"{text}, but {heard}")

    def _forget(self) -> None:
        """Forget what was of the connection before."""
        self.current.clear()
        self.seen.clear()
        self._requests.clear()
        self._heard.clear()
        if self._refreshing is not None:  # it came through or not: the newer token is good
            self.granted, self._refreshing = self._refreshing, None

    def _begin(self) -> None:
        is_known = len(self._cursors) == len(self._kept) == len(self.character.topics)
        if self.character.durable and is_known:
            self.history.counts["resumed"] += 1
            self.send({"type": "resume"}, Request("resume"))
        else:
            self._enter_all()
        for activity in list(self.unanswered.values()):
            self.publish(activity, echo=True)

    def _enter_all(self) -> None:
        for topic in self.granted:
            if topic not in self.current and not self.is_subscribing(topic):
                self.subscribe(topic, self.filter_of(topic), since=self.reached.get(topic))

    def filter_of(self, topic: str) -> Filter:
        """Return the filter that a durable subscription keeps."""
        if not self.character.durable or topic == self.character.topics[0]:
            return EVERYTHING
        return Filter(types=frozenset({"task"}), not_users=frozenset({"echo-a"}))

    def _act(self) -> None:
        if self.stopped:
            self._enter_all()
            return
        for _ in range(self.random.randrange(1, 4)):
            topics = [topic for topic in self.current if topic in self.seen]
            if topics and self.character.habits:
                habit: Habit = HABITS[self.random.choice(self.character.habits)]
                habit(self, self.random.choice(topics))
        self._enter_all()

    # What it receives:

    def _receive(self, payload: bytes) -> None:
        if payload.startswith(b'{"type":"activity"'):
            self._take_activity(payload)
            return
        message = json.loads(payload)
        kind = message["type"]
        if self.character.plain and kind not in PLAIN_TYPES:
            self.note("plain", f"has no subprotocol and was sent {message}")
        if kind == "position":
            topic, offset = message["povId"], message["offset"]
            if not self.current.get(topic, EVERYTHING).message:
                self.note("position", f"has no filter on {topic} and was sent {message}")
            else:
                self.history.counts["positions"] += 1
                self._move(topic, offset)
                self._courses[topic].name(offset, "position")
            return
        if kind == "receipts":
            self._hear(message)
        if "id" in message:
            self._take_answer(message)
        elif kind == "error":
            self.note("refused", f"was answered {message}")

    def _take_activity(self, payload: bytes) -> None:
        push = decode_push(payload)
        data = decode_activity(push.data)
        topic = push.feed or data.pov_id
        if topic not in self.current:
            self.note("stray", f"is not subscribed to {topic} and was sent {payload[:200]!r}")
            return
        self._courses[topic].receive(push.offset, data.id, checksum(data), crc32(push.data))
        self._move(topic, push.offset)

    def _move(self, topic: str, offset: int) -> None:
        place = self.reached[topic]
        self.reached[topic] = place._replace(offset=max(place.offset, offset))
        self.seen[topic] = max(self.seen[topic], offset)

    def _hear(self, message: Mapping[str, Any]) -> None:
        pov = message["povId"]
        for user, offset in message["read"].items():
            floor = self._heard.get((pov, user), 0)
            self.readings.hear(self.name, user, pov, offset, floor)
            self._heard[pov, user] = max(floor, offset)
            self.history.counts["receipts"] += 1

    def _take_answer(self, message: dict[str, Any]) -> None:
        request = self._requests.get(message["id"])
        if request is None:
            self.note("reply", f"was answered twice, or asked nothing: {message}")
            return
        first = next((number for number, each in self._requests.items() if each.is_ordered), None)
        if request.is_ordered and first != message["id"]:
            self.note("reply", f"was answered {message} before {self._requests[first or 0]}")
        del self._requests[message["id"]]
        if message["type"] == "error":
            self._take_error(message, request)
        else:
            self._answers[request.kind](self, message, request)

    def _take_error(self, message: dict[str, Any], request: Request) -> None:
        code = message["code"]
        if request.kind == "refresh":
            self._refreshing = None
        if code in PASSING:
            pause_s = max(AGAIN_S, wait_s(message))
            self._paused_until = asyncio.get_running_loop().time() + pause_s
            if request.activity is not None:
                activity = request.activity
                asyncio.get_running_loop().call_later(pause_s, self._publish_again, activity)
            return
        changed = self._refreshes != request.refreshes or self._refreshing is not None
        is_lost = changed or request.topic not in self.granted
        # What an authority took away meanwhile is forbidden; so is what needs a subscription then.
        if code == "forbidden" and is_lost and request.kind != "refresh":
            if request.activity is not None:
                self.unanswered.pop(request.activity.id, None)
            return
        self.note("refused", f"was answered {message} to {request}")

    def _publish_again(self, activity: Activity) -> None:
        if activity.id in self.unanswered:
            self.publish(activity, echo=True)

    def _take_subscribed(self, message: dict[str, Any], request: Request) -> None:
        topic, only = message["povId"], request.only
        here = Place(message["epoch"], message["offset"])
        kept = Kept(message["oldestOffset"], message["guarantee"]["entries"])
        since, confirmed = request.since, 0
        if request.last:
            since = here._replace(offset=max(here.offset - request.last, kept.oldest - 1))
        if request.cursor:
            cursor = self._cursors[topic]
            if cursor.offset or message.get("recovered"):  # at 0, before any activity, none is kept
                since = cursor._replace(offset=max(cursor.offset, self._acked.get(topic, 0)))
            confirmed = request.confirmed[f"cursor {topic}"].offset
        recovered = message.get("recovered")
        if topic not in self.granted and topic not in (self._refreshing or ()):
            self.note("grant", f"was subscribed to {topic}, which its token does not cover")
        if message.get("filtered", False) != bool(only.message):
            self.note("filter", f"asked for {only} on {topic} and was answered {message}")
        if problem := find_digest_problem(message.get("digest"), self.history):
            self.note("digest", f"was told of {topic}: {problem}")
        entered = Entered(
            here.offset, only, topic in self.current, since, request.cursor, confirmed, recovered
        )
        self._courses[topic].enter(here.epoch, entered, message.get("missed"), kept)
        if topic not in self.current:
            self._entered_at[topic] = asyncio.get_running_loop().time()
            self.seen[topic] = 0
        self.current[topic] = only
        known = self.reached.get(topic, here)
        if recovered and since is not None:
            self.reached[topic] = known
            # What it acknowledges has come on this connection, or was asked for as known.
            self.seen[topic] = max(self.seen[topic], confirmed if request.cursor else since.offset)
        else:
            self.reached[topic] = here._replace(offset=max(here.offset, known.offset))
            self.seen[topic] = max(self.seen[topic], here.offset)
        if self.character.durable:
            self._kept[topic] = only
        self._check_read(topic, message, request.confirmed.get(topic, Place("", 0)).offset)
        if len(self.current) == len(self.character.topics):
            self.joined.set()

    def _check_read(self, topic: str, message: dict[str, Any], floor: int) -> None:
        if "readOffset" not in message:
            return
        read, unread = message["readOffset"], message["unread"]
        # What the log has no longer counts as read.
        gone = message["oldestOffset"] - 1
        self.readings.hear(self.name, self.user, topic, read, floor, gone)
        # Of what the log has, which may be more than has come to this connection.
        if not 0 <= unread <= max(0, self.history.sent_on[topic] - read):
            self.note("read", f"was told of {unread} unread on {topic}: {message}")

    def _take_resumed(self, message: dict[str, Any], request: Request) -> None:
        results = message["results"]
        if errors := [each for each in results if "code" in each]:
            if errors[0]["code"] not in PASSING:
                self.note("refused", f"was answered {errors[0]} to resume")
            self.reset()
            return
        if forgotten := set(self._kept) - {each["povId"] for each in results}:
            self.note("forgotten", f"was not resumed on {forgotten}")
        for each in results:
            topic = each["povId"]
            part = Request("resume", topic, self._kept.get(topic, EVERYTHING), cursor=True)
            part.confirmed = request.confirmed
            self._take_subscribed(each, part)

    def _take_unsubscribed(self, _: dict[str, Any], request: Request) -> None:
        self.current.pop(request.topic, None)

    def _take_acked(self, message: dict[str, Any], request: Request) -> None:
        topic, offset = request.topic, message["offset"]
        if not request.floor <= offset <= self._acked[topic]:
            text = f"cursor on {topic} is {offset}; it acknowledged {request.floor}"
            self.note("cursor", f"{text} and no more than {self._acked[topic]}")
        self._cursors[topic] = Place(message["epoch"], offset)
        self.history.counts["cursors moved"] += 1

    def _take_receipts(self, message: dict[str, Any], request: Request) -> None:
        offset = message["read"][self.user]
        self.readings.hear(self.name, self.user, request.topic, offset, request.floor)
        self.readings.confirm(self.user, request.topic, Mark(offset, request.at))
        self.history.counts["read"] += 1

    def _take_published(self, message: dict[str, Any], request: Request) -> None:
        activity, offset = request.activity, message["offset"]
        assert activity is not None
        self.unanswered.pop(activity.id, None)
        if (message["activityId"], message["povId"]) != (activity.id, activity.pov_id):
            self.note("place", f"published {activity.id} and was answered {message}")
            return
        self.history.acknowledge(activity.id, message["epoch"], offset)
        if not request.echo and not message["duplicate"] and request.topic in self.current:
            self._courses[request.topic].publish(offset, activity.id, checksum(activity))
            self._move(request.topic, offset)
            self.history.counts["answers in place of an echo"] += 1

    def _take_refreshed(self, message: dict[str, Any], request: Request) -> None:
        lost, kept = set(message["lost"]), set(request.povs)
        if lost & kept:
            self.note("grant", f"lost {lost & kept}, which its token covers")
        if left := set(self.current) - kept - lost:
            self.note("grant", f"was not told to have lost {left}")
        for topic in lost:
            self.current.pop(topic, None)
        self.granted, self._refreshing = request.povs, None
        self._refreshes += 1
        self.history.counts["refreshed"] += 1

    _answers: Mapping[str, Callable[[Member, dict[str, Any], Request], None]] = {
        "subscribe": _take_subscribed,
        "resume": _take_resumed,
        "unsubscribe": _take_unsubscribed,
        "ack": _take_acked,
        "read": _take_receipts,
        "publish": _take_published,
        "refresh": _take_refreshed,
        "ping": lambda *_: None,
    }


async def expect_refusal(port: int, token: str) -> str | None:
    """Return what is wrong where a token that was revoked is not refused."""
    with suppress(ConnectionRefusedError, *LOST):
        client = await connect(port, token, lambda _: None)
        client.reset()
        return "connected with a token that was revoked"
    return None
