"""A plugin for `test_doors`: ids wherever a message, a path or a body can have them."""

from msgspec import UNSET, UnsetType, field

from pov_rt.plugin import (
    ActivityId,
    Context,
    Message,
    Part,
    Plugin,
    PovId,
    PovOrFeed,
    Request,
    UserId,
)

plugin = Plugin("probe")


class Inner(Part):
    """Something with an id in it."""

    pov_id: PovId


class Ask(Message, tag="probe.ask"):
    """One nested, several, one that may be absent, and all other sorts."""

    inner: Inner
    pov_ids: list[PovId]
    deep: list[Inner] = field(default_factory=list)
    by_name: dict[str, PovId] = field(default_factory=dict)
    perhaps: PovId | None = None
    unset: PovOrFeed | UnsetType = UNSET
    user_id: UserId | UnsetType = UNSET
    activity_id: ActivityId | UnsetType = UNSET


class Said(Message, tag="probe.said"):
    """It was all right."""


class Body(Part, forbid_unknown_fields=True):
    """What the route takes."""

    inner: Inner
    user_ids: list[UserId]


class Done(Part):
    """It was all right."""


@plugin.on(Ask, grant="collaborate")
def ask(message: Ask, context: Context) -> Said:
    """Answer."""
    return Said()


@plugin.http("PUT", "/povs/{pov_id}/probe/{user_id}", grant="collaborate", body=Body)
def put(request: Request) -> Done:
    """Answer."""
    return Done()
