"""Reactions to activities, such as a thumb up: counted for everybody, and kept over restarts."""

from typing import Annotated

from pov_rt.plugin import ActivityId, Context, Length, Message, Plugin, PovId

plugin = Plugin("reactions")

Reactions = dict[str, list[str]]
"""Who reacted, by emoji."""


class React(Message, tag="reactions.react"):
    """React to an activity, or take the reaction back."""

    pov_id: PovId
    activity_id: ActivityId
    emoji: Annotated[str, Length(1, 16)]
    on: bool = True


class Counts(Message, tag="reactions.counts"):
    """How many reacted to an activity, by emoji."""

    pov_id: PovId
    activity_id: str
    counts: dict[str, int]


@plugin.on(React, grant="collaborate", rate="10/s")
async def react(message: React, context: Context) -> Counts:
    """Keep the reaction and show the counts to every subscriber."""
    context.require_subscribed(message.pov_id)
    user = context.user.user_id

    def change(old: Reactions | None) -> Reactions:
        found = {
            emoji: [each for each in users if each != user or emoji != message.emoji]
            for emoji, users in (old or {}).items()
        }
        if message.on:
            found.setdefault(message.emoji, []).append(user)
        return {emoji: users for emoji, users in found.items() if users}

    key = f"{message.pov_id}/{message.activity_id}"
    kept = await context.host.store.update(key, Reactions, change) or {}
    counts = Counts(
        pov_id=message.pov_id,
        activity_id=message.activity_id,
        counts={emoji: len(users) for emoji, users in kept.items()},
    )
    context.broadcast(message.pov_id, counts)
    return counts
