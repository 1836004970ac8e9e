"""The end of a subscription: nothing of the PoV follows the answer."""

from pov_rt.plugin import Context, Message, Plugin, PovOrFeed, Unsubscribed

plugin = Plugin("unsubscribe")


class Unsubscribe(Message, tag="unsubscribe"):
    """Unsubscribe from a PoV, or with `*` from the team feed.

    With `durable` the user's other devices will not resume it either.
    """

    # No PovId: whoever lost the right to see a PoV must still be able to leave it.
    pov_id: PovOrFeed
    durable: bool = False


# Without a price, which a debt would refuse: it makes less work. What there is is charged.
@plugin.on(Unsubscribe, price=0)
async def unsubscribe(message: Unsubscribe, context: Context) -> Unsubscribed:
    """Unsubscribe the connection."""
    context.charge(1)
    if message.durable:  # first, for it may fail
        await context.host.durable.remove(context.user.user_id, message.pov_id)
    context.unsubscribe(message.pov_id)
    return Unsubscribed(pov_id=message.pov_id)
