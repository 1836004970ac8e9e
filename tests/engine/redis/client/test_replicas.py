"""What is safe: nobody who could be the next primary lacks it, by what each sentinel says."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from pov_rt.engine.redis.client.connection import ServerError, pack
from pov_rt.engine.redis.client.replicas import Replica, Replicas, View
from pov_rt.protocol.errors import Unavailable

GOOD = Replica(is_down=False, is_linked=True, priority=100, offset=500)
DOWN = GOOD._replace(is_down=True)
AWAY = GOOD._replace(is_linked=False)
A, B = "10.0.0.1:6379", "10.0.0.2:6379"


class Said:
    """Electors that have said something."""

    def __init__(self, *views: View) -> None:
        self.views: Sequence[View] = views

    async def look(self) -> None:
        """Say the same."""


def replicas(*views: View, least: int = 1, **confirmed: int) -> Replicas:
    """Return replicas of which `a` and `b` have confirmed so much of 1,000."""
    found = Replicas(Said(*views), least, 100)
    names = {"a": "10.0.0.1", "b": "10.0.0.2"}
    states = [
        f"slave{at}:ip={names[name]},port=6379,state={'online' if acked else 'send_bulk'},"
        f"offset={acked},lag=0\r\n"
        for at, (name, acked) in enumerate(confirmed.items())
    ]
    info = f"# Replication\r\nrole:master\r\n{''.join(states)}master_repl_offset:1037\r\n"
    assert found.read([[b"master", 1000, []], len(states), info.encode()]) == 1000
    return found


def test_what_all_have_is_sure_and_what_one_lacks_is_not() -> None:
    both = {A: GOOD, B: DOWN}, {A: GOOD}
    assert replicas(*both, a=1000, b=1010).are_sure(1000)
    assert replicas(*both, a=1000, b=1010).lack(1000) == ""
    # It was down when they were asked. Whether it is still, only they can say.
    assert not replicas(*both, a=1000).are_sure(1000)
    behind = replicas(*both, a=1000, b=999)
    assert (behind.are_sure(999), behind.are_sure(1000)) == (True, False)


@pytest.mark.parametrize(
    ("view", "may_lead"),
    [
        (GOOD, True),
        (DOWN, False),
        (GOOD._replace(priority=0), False),
        # It does not follow: the one that is furthest is chosen, so it may not be ahead.
        (AWAY._replace(offset=499), False),
        (AWAY, True),
        (AWAY._replace(offset=900), True),
        (AWAY._replace(offset=499, priority=10), True),
        (AWAY._replace(offset=499, priority=200), False),
    ],
)
def test_who_lacks_it_may_not_be_one_that_could_be_chosen(view: Replica, *, may_lead: bool) -> None:
    found = replicas({A: GOOD, B: view}, a=1000)
    assert not found.are_sure(1000)
    expected = f"the sentinels may choose {B}, which has not got it" if may_lead else ""
    assert found.lack(1000) == expected
    # Each sentinel may be the one that chooses.
    assert replicas({A: GOOD, B: DOWN}, {A: GOOD, B: view}, a=1000).lack(1000) == expected


def test_whom_the_primary_brings_up_to_date_has_to_have_it_though_the_sentinels_see_it_behind() -> (
    None
):
    found = replicas({A: GOOD, B: AWAY._replace(offset=0)}, a=1000, b=0)
    assert B in found.lack(1000)
    # And it is waited for.
    assert pack("WAIT", 2, 100) in found.question()


def test_so_many_have_to_have_it_whoever_may_lead() -> None:
    found = replicas(least=2, a=1000, b=999)
    assert not found.are_sure(1000)
    assert found.lack(1000) == "fewer than 2 replicas of Redis have it (engine.redis.replicas)"
    assert pack("WAIT", 2, 100) in found.question()
    assert found.are_sure(999)
    assert replicas(a=1000).are_sure(1000)


@pytest.mark.parametrize(
    ("replies", "why"),
    [
        ([ServerError("NOPERM no ROLE"), 1, b""], "NOPERM no ROLE"),
        ([[b"slave", b"10.0.0.2", 6379, b"connected", 0], 0, b""], "it is a replica now"),
    ],
)
def test_without_an_answer_nothing_is_known(replies: list[object], why: str) -> None:
    found = replicas(a=1000)
    with pytest.raises(Unavailable, match=why):
        found.read(replies)
