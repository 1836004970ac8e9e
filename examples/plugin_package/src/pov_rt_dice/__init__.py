"""Dice: what somebody throws, everybody on the PoV sees."""

import secrets
from typing import Annotated

import msgspec

from pov_rt.plugin import Context, Message, Plugin, PovId


class Options(msgspec.Struct):
    """`[plugins.dice]`."""

    sides: int = 6


class Throw(Message, tag="dice.throw"):
    """Throw some dice."""

    pov_id: PovId
    dice: Annotated[int, msgspec.Meta(ge=1, le=10)] = 1


class Thrown(Message, tag="dice.thrown"):
    """What they show, and who threw them."""

    pov_id: PovId
    user_id: str
    eyes: list[int]


plugin = Plugin("dice", options=Options, pushes=[Thrown])


@plugin.on(Throw, grant="collaborate", rate="2/s")
def throw(message: Throw, context: Context) -> Thrown:
    """Throw them here, where nobody can cheat."""
    context.require_subscribed(message.pov_id)
    sides = context.host.options(Options).sides
    eyes = [1 + secrets.randbelow(sides) for _ in range(message.dice)]
    thrown = Thrown(pov_id=message.pov_id, user_id=context.user.user_id, eyes=eyes)
    context.broadcast(message.pov_id, thrown)
    return thrown
