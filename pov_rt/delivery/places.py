"""Where somebody is in a log that has another epoch by now: the one rule of it.

An engine begins a new epoch when it has lost the end of a log. A place of an older one that the log
still holds (`engine.base.Log.holds`) is the same offset in the new one, and whoever is there goes
on. Any other is no place in the log: who comes with it is told of a gap.
"""

from __future__ import annotations

from pov_rt.delivery.filters import Since
from pov_rt.delivery.replay import AfterMarks
from pov_rt.delivery.topic import Topic
from pov_rt.engine.base import Log, Position


async def placed(log: Log, topic: str, epoch: str, place: Position) -> Position:
    """Return a place in a topic's log as one of this epoch, if it is held; else as it is.

    `epoch` is the log's, or was after the place had been given out: what is held now was then, too.
    Raises `Unavailable`.
    """
    if place.epoch == epoch or not await log.holds(topic, place):
        return place
    return Position(epoch, place.offset)


async def sought(log: Log, topic: Topic, since: Since | AfterMarks) -> Since | AfterMarks:
    """Return from where a followed topic is asked for, its places as `placed`.

    The topic's epoch is no older than those of the places. Raises `Unavailable`.
    """
    name, epoch = topic.name, topic.epoch
    if isinstance(since, Position):
        since = await placed(log, name, epoch, since)
    elif isinstance(since, AfterMarks):
        since = AfterMarks([await placed(log, name, epoch, each) for each in since.places])
    # Another one may have been adopted while that was asked, which holds as much of this one.
    return since if topic.epoch == epoch else await sought(log, topic, since)
