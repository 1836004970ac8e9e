"""Mentions: whoever is named with @ in the text of an activity finds it in the inbox, surely."""

import re

from pov_rt.plugin import UNSET, Activity, Host, NewNotification, Plugin, Published

plugin = Plugin("mentions")

NAME = re.compile(r"@(\w{1,64})")


@plugin.follows()
async def follow(activity: Activity, published: Published, host: Host) -> None:
    """Notify each one once: a repetition has the same id, which the inbox knows."""
    details = {} if activity.details is UNSET else activity.details
    text = details.get("text")
    names = NAME.findall(text) if isinstance(text, str) else []
    for name in dict.fromkeys(names):
        if name != activity.user_id:
            await host.notify(
                name,
                NewNotification(
                    id=f"mention-{activity.id}"[:128],
                    type="mention",
                    pov_id=activity.pov_id,
                    user_id=activity.user_id,
                    details={"text": text},
                ),
            )
