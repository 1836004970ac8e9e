"""Every cause there is: what is said of it, and what happens next.

In the texts `{user}`, `{device}`, `{id}` and `{pov}` stand for what is asked about, and `{what}`
for what the events say more.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Cause(NamedTuple):
    """What became of an activity: what is said, and what happens next.

    `rank` says how far it came: of several devices the one that it came furthest to is the answer.
    `is_good`: the user has it.
    """

    rank: int
    sentence: str
    next: str
    is_good: bool = False


_NOTHING = "Nothing more happens by itself"
_RECONNECTS = "The client comes back by itself and is sent everything that is still kept"
_PUBLISH = "Whoever published it was told so; it has to be published again, mended"

CAUSES: Mapping[str, Cause] = {
    # It is in no log:
    "unknown": Cause(
        0,
        "{id} is not known here: nothing with this id is kept{what}",
        "Check the id, and at whose server it was published; publishers get the place of what they "
        "publish in the answer",
    ),
    "rejected": Cause(0, "{id} was never published: its publisher was answered {what}", _PUBLISH),
    "rejected_by_plugin": Cause(
        0,
        "{id} was never published: a plugin refused it: {what}",
        "See what the plugin's before_publish asks for; then publish it again",
    ),
    "conflict": Cause(
        0,
        "{id} was not published again: its publisher had used the id for something else; {what}",
        "What came first is there; publish the other one under an id of its own",
    ),
    "other_tenant": Cause(
        0,
        "{id} is another team's: {user} cannot have it, whatever the token says{what}",
        "Publish it with a token of the user's team",
    ),
    "other_pov_activity": Cause(
        0, "{id} was published on another PoV: {what}", "Ask for it there, or publish it on {pov}"
    ),
    "other_inbox": Cause(0, "{id} is a notification to somebody else: {what}", "Send it to {user}"),
    "removed": Cause(
        0,
        "{id} is not kept any more: the log begins behind it{what}",
        "See engine.max_entries and engine.max_age_s, or [pov] for this PoV; who was away is told "
        "of the gap",
    ),
    "erased": Cause(0, "{id} was erased with its author's data; its place is empty", _NOTHING),
    "retracted": Cause(
        0, "{id} was retracted; whoever had it was told so", "Clients take it from their lists"
    ),
    "expired": Cause(0, "{id} had expired before a device of {user} came for it{what}", _NOTHING),
    # No connection:
    "never_connected": Cause(
        1,
        "{user} has not been connected since the trace begins{what}",
        "What is kept is sent when a device connects and asks for it",
    ),
    "away": Cause(
        2,
        "{user} was away: {device} was closed by its client{what}",
        "When it is back it asks from where it was, and is sent everything that is still kept",
    ),
    "cut": Cause(
        2,
        "{device}'s connection was cut without a goodbye, as networks and proxies do{what}",
        "The client comes back by itself; if it happens after the same time again and again, the "
        "proxy's idle time is below ping.interval_s",
    ),
    "token_expired": Cause(
        2,
        "{device}'s token had expired{what}",
        "The client needs a new token from the app's server; then it is sent what it missed",
    ),
    "token_revoked": Cause(
        2, "{user}'s token was revoked{what}", "The user has to sign in again to get a new token"
    ),
    "token_invalid": Cause(
        2,
        "{user}'s token is refused{what}",
        "See pov-rt token show, and whether the clocks of the app's machine and of this one agree",
    ),
    "refused": Cause(
        2,
        "{user} was not let in{what}",
        "The client tries again; what it says is missing has to change",
    ),
    "slow": Cause(2, "{device} read too slowly and was closed{what}", _RECONNECTS),
    "frozen": Cause(
        2,
        "{device} stopped answering, as a sleeping computer or a frozen tab does{what}",
        _RECONNECTS,
    ),
    "restart": Cause(2, "this server was restarted{what}", _RECONNECTS),
    "disconnected": Cause(
        2, "an operator disconnected {user}{what}", "The client does not come back by itself"
    ),
    "flooding": Cause(
        2,
        "{device} was closed for sending too much{what}",
        "The client does not come back by itself",
    ),
    "closed": Cause(2, "{device} was closed by this server{what}", _RECONNECTS),
    # Connected, and not subscribed:
    "no_grant": Cause(
        3, "{user}'s token does not allow it{what}", "The app has to issue a token with this PoV"
    ),
    "denied": Cause(
        3,
        "the app says that {user} may not see {pov}{what}",
        "See the answers of the app to its authoriser; the client may ask again",
    ),
    "lost": Cause(
        3,
        "{user} lost {pov}{what}",
        "The client was told; it is subscribed again if it may and asks",
    ),
    "over_budget": Cause(
        3,
        "{user} was over a limit{what}",
        "The client waits as long as it was told and tries again",
    ),
    "refused_subscription": Cause(
        3, "{device}'s subscription to {pov} was refused{what}", "The client was told why"
    ),
    "other_pov": Cause(
        3,
        "{device} follows another PoV, and not {pov}{what}",
        "Ids are compared byte for byte; the page has to subscribe to {pov}",
    ),
    "other_feed": Cause(
        3,
        "{device} follows the feed of another team{what}, which does not have {id}",
        "A feed has what is published with a token of its team: see teamId in the publisher's",
    ),
    "not_subscribed": Cause(
        3,
        "{device} is connected and has not subscribed to {pov}{what}",
        "The page has to subscribe to {pov}",
    ),
    "unsubscribed": Cause(
        3, "{device} had unsubscribed from {pov}{what}", "The page has to subscribe again"
    ),
    # Subscribed, and not sent:
    "subscribed_later": Cause(
        4,
        "{device} subscribed to {pov} after it was published, and asked for nothing before{what}",
        "It is in the history; a client that passes since is sent what it missed",
    ),
    "gap": Cause(
        4,
        "{device} came back with a position in another log: this one was reset or restored{what}",
        "The client was told recovered: false, and has to load the history",
    ),
    "missed": Cause(
        4,
        "{device} was away for too much to be replayed: it lay in the gap{what}",
        "The client was told recovered: false; it is in the history if it is still kept",
    ),
    "filter": Cause(
        4, "{device}'s filter leaves it out{what}", "Another filter takes another subscription"
    ),
    "behind": Cause(
        5,
        "{device} has not come to it yet: it reads slowly{what}",
        "It is sent as fast as the client reads",
    ),
    # Sent:
    "unacknowledged": Cause(
        6,
        "it was sent to {device}, which has not acknowledged it{what}",
        "A tab that sleeps takes it when it wakes; if the connection breaks, it is sent again",
    ),
    "written": Cause(
        6,
        "it was sent to {device}; the client does not acknowledge, so nobody knows more{what}",
        "Clients that send ack, with shown, are known of further",
        is_good=True,
    ),
    "delivered": Cause(
        7,
        "{device} has it and acknowledged it{what}",
        "Whether it was shown the client has not said",
        is_good=True,
    ),
    # Acknowledged, and why it was not shown:
    "muted": Cause(8, "{device} has it and did not show it: {user} muted {pov}{what}", _NOTHING),
    "filtered": Cause(
        8, "{device} has it and did not show it: the page's own filter hides it{what}", _NOTHING
    ),
    "hidden": Cause(
        8,
        "{device} has it and did not show it: the page was in the background{what}",
        "It is in the feed when the page is looked at",
    ),
    "quiet": Cause(
        8,
        "{device} has it and did not show it: it came in {user}'s quiet hours{what}",
        "It is in the feed, and in the digest after them",
    ),
    "feed": Cause(
        8,
        "{device} shows it in its feed, which was open, and so made no toast of it{what}",
        _NOTHING,
        is_good=True,
    ),
    "digest": Cause(
        8, "{device} shows it as one of many in a digest{what}", _NOTHING, is_good=True
    ),
    "own": Cause(
        8, "{device} has it and made no toast of it: {user} did it{what}", _NOTHING, is_good=True
    ),
    "no_component": Cause(
        8,
        "{device} has it and did not show it: the component was closed, or not on the page{what}",
        "It is in the feed when the page has one",
    ),
    "not_shown": Cause(8, "{device} has it and did not show it{what}", _NOTHING),
    "shown": Cause(9, "{device} has it and showed it{what}", _NOTHING, is_good=True),
    "read": Cause(10, "{user} has read it on {device}{what}", _NOTHING, is_good=True),
    "read_elsewhere": Cause(
        8,
        "{user} has read it elsewhere, and {device} counts it as read{what}",
        _NOTHING,
        is_good=True,
    ),
}

SHOWN = {"closed": "no_component"}
"""Reasons of clients that are another cause's name; the others are called as they are."""
