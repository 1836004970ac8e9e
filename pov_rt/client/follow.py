"""How a PoV is followed, without a socket: where one is, what is a hole in it, and what is a gap.

The one rule is that of the browser SDK: all is keyed by (epoch, offset), and the server says when a
log goes on under another epoch. What is not behind the own position is dropped; where a hole is,
the PoV is subscribed to again from the position. So what is sent twice does no harm, and a
reconnect is nothing special.

| state | meaning | left by |
|---|---|---|
| joining | to be subscribed to; what comes is dropped | `asked` |
| asked | the server is asked; what comes is dropped, for it is from before | `answered`, `lost` |
| paging | more was missed than is sent again: it is read from the history | `paged`, `lost` |
| waiting | the server refused for now | `again`, `lost` |
| live | what comes is given to the consumer | a hole, `lost` |
| ended | for good | |
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from pov_rt.protocol.messages import Activity, Part

State = Literal["joining", "asked", "paging", "waiting", "live", "ended"]
FEED = "*"


class Position(NamedTuple):
    """A place in the log of a PoV: what to keep, and to give as `since` next time."""

    epoch: str
    offset: int


class PlacedActivity(Activity):
    """An activity where it belongs: `offset` is +1 each in its PoV's log (of `*`: the feed's)."""

    epoch: str
    offset: int

    @property
    def position(self) -> Position:
        """Its place. Keep it before you handle the activity, so that nothing is handled twice."""
        return Position(self.epoch, self.offset)


class Only(Part):
    """Which activities are wanted; a list that is not given leaves nothing out."""

    types: Sequence[str] | UnsetType = UNSET
    actions: Sequence[str] | UnsetType = UNSET
    users: Sequence[str] | UnsetType = UNSET
    not_users: Sequence[str] | UnsetType = UNSET

    def fits(self, activity: Activity) -> bool:
        """Tell whether an activity is wanted."""
        return (
            (self.types is UNSET or activity.type in self.types)
            and (self.actions is UNSET or activity.action in self.actions)
            and (self.users is UNSET or activity.user_id in self.users)
            and (self.not_users is UNSET or activity.user_id not in self.not_users)
        )


class Joined(Part):
    """The server's answer to a subscription: it begins at `offset`, or behind `after`."""

    pov_id: str
    epoch: str
    offset: int
    oldest_offset: int = 1
    recovered: bool = False
    after: int | None = None
    missed: int | None = None
    digest: dict[str, Any] | None = None
    guarantee: dict[str, Any] | None = None


class Gap(NamedTuple):
    """Activities that are missing: those behind `since` (None: not known) up to `to`.

    `missed` is how many, and `digest` what they were in numbers, where the server knows.
    """

    pov_id: str
    since: Position | None
    to: Position
    missed: int | None
    why: str
    digest: Mapping[str, Any] | None = None

    def __str__(self) -> str:
        """Say it for a log."""
        return f"{self.pov_id}: activities are missing, for {self.why}"


class Start(NamedTuple):
    """From here on the consumer gets everything; `gap` is what is missing before, if something."""

    at: Position
    gap: Gap | None


Item = PlacedActivity | Position | Start
"""What is given to the consumer: an activity, or how far it is where none was sent, or a start."""


class Followed:
    """One PoV. Owner: the client, which takes what is in `given` after each call."""

    def __init__(
        self,
        pov_id: str,
        since: Position | Literal["cursor"] | None = None,
        last: int | None = None,
        only: Only | None = None,
        *,
        durable: bool = False,
    ) -> None:
        self.pov_id = pov_id
        self.state: State = "joining"
        self.position = since if isinstance(since, Position) else None
        """Up to where everything was given, or is to be had from the server."""
        self.given: list[Item] = []
        self.repeated = 0
        """How many activities the server sent again that were given already."""
        self._begin: dict[str, Any] = {}
        if since == "cursor":
            self._begin["since"] = since
        elif last is not None:
            self._begin["since"] = {"last": last}
        self._options: dict[str, Any] = {"durable": True} if durable else {}
        if only is not None:
            self._options["only"] = msgspec.to_builtins(only)
        self._only = only
        self.on_joined: Callable[[Joined], object] | None = None
        self._is_known = False
        self._hole: int | None = None

    @property
    def common(self) -> dict[str, Any]:
        """The fields of `subscribe` that it shares with others of one question."""
        return self._options if self.position else {**self._begin, **self._options}

    def answered(self, answer: Joined) -> None:
        """Take in that it is subscribed; the state is then `live`, or `paging`."""
        asked, top = self.position, Position(answer.epoch, answer.offset)
        if answer.recovered and answer.after is not None:
            self._start(Position(answer.epoch, answer.after), None)
        elif asked is None and self._begin.get("since") != "cursor":
            self._start(top, None)
        elif asked is not None and self._is_kept(asked, answer):
            self.state = "paging"
            return
        else:
            gap = Gap(self.pov_id, asked, top, answer.missed, _reason(asked, answer), answer.digest)
            self._start(top, gap)
        self.state = "live"

    def paged(self, epoch: str, oldest: int, found: Iterable[tuple[int, Any]], upto: int) -> None:
        """Take in a page of the history, which ends at `upto`."""
        position = self.position
        if position is None or epoch != position.epoch:
            self.state = "joining"  # whose answer says what that means
            return
        if oldest > position.offset + 1:
            self._skip(Position(epoch, oldest - 1), "the log has the rest no longer")
        for offset, data in found:
            self._give(offset, data)
        self._move(upto)

    def received(self, offset: int, data: Any) -> None:
        """Take in an activity that was sent; the state is `joining` if something is missing."""
        position = self.position
        if self.state != "live" or position is None:
            return
        if offset <= position.offset:
            self.repeated += 1
            return
        if offset > position.offset + 1 and self._only is None:
            if self._hole != position.offset:
                self._hole = position.offset
                self.state = "joining"
                return
            # Also from the position on the server has nothing in between.
            self._skip(Position(position.epoch, offset - 1), "the server has them no longer")
        self._give(offset, data)

    def moved(self, offset: int, epoch: str | None = None) -> None:
        """Take in how far it has come where nothing was sent, or the epoch that the log has now."""
        position = self.position
        if self.state != "live" or position is None or offset < position.offset:
            return
        at = Position(epoch or position.epoch, offset)
        if at != position:
            self.position = at
            self.given.append(at)

    def lost(self) -> None:
        """Begin again, from the position: the connection is gone."""
        if self.state != "ended":
            self.state = "joining"

    def _is_kept(self, asked: Position, answer: Joined) -> bool:
        """Tell whether the history has all behind a position."""
        return (
            self.pov_id != FEED
            and asked.epoch == answer.epoch
            and answer.oldest_offset - 1 <= asked.offset <= answer.offset
        )

    def _start(self, at: Position, gap: Gap | None) -> None:
        self.position = at
        if gap is not None or not self._is_known:
            self.given.append(Start(at, gap))
        self._is_known = True

    def _skip(self, to: Position, why: str) -> None:
        since = self.position
        missed = to.offset - since.offset if since else None
        self._start(to, Gap(self.pov_id, since, to, missed, why))

    def _give(self, offset: int, data: Any) -> None:
        if self.position is None or offset <= self.position.offset:
            return
        epoch = self.position.epoch
        activity = msgspec.convert({**data, "epoch": epoch, "offset": offset}, PlacedActivity)
        self.position = Position(epoch, offset)
        is_wanted = self._only is None or self._only.fits(activity)
        self.given.append(activity if is_wanted else self.position)

    def _move(self, offset: int) -> None:
        if self.position is not None and offset > self.position.offset:
            self.position = Position(self.position.epoch, offset)
            self.given.append(self.position)


def question(group: Sequence[Followed]) -> dict[str, Any]:
    """Return the `subscribe` for PoVs that have the same `common` fields."""
    if len(group) == 1:
        (one,) = group
        since = {"since": one.position._asdict()} if one.position else {}
        return {"type": "subscribe", "povId": one.pov_id, **since, **one.common}
    positions = {each.pov_id: each.position._asdict() for each in group if each.position}
    asked = {"type": "subscribe", "povIds": [each.pov_id for each in group], **group[0].common}
    return asked | {"positions": positions} if positions else asked


def _reason(asked: Position | None, answer: Joined) -> str:
    if asked is None:
        return "this device has acknowledged nothing yet"
    if answer.epoch != asked.epoch:
        return "the log is another one"
    if answer.missed is None:
        return "they are too many or too old"
    return f"{answer.missed} were missed"
