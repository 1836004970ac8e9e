"""What the demo begins with fits together, and is what the server takes."""

from __future__ import annotations

from collections import Counter

from pov_rt.web.demo.content import PEOPLE, PHASES, burst, first_activities, first_povs


def test_the_board_begins_with_people_and_phases_that_there_are() -> None:
    for pov in first_povs():
        assert 0 <= pov.phase < len(PHASES)
        assert {task.who for task in pov.tasks} <= PEOPLE.keys()
        assert len({task.id for task in pov.tasks}) == len(pov.tasks)


def test_what_happened_first_is_about_what_there_is_with_ids_for_good() -> None:
    told = list(first_activities("b"))
    assert told == list(first_activities("b"))
    assert len({activity.id for activity in told}) == len(told)
    titles = {task.title for pov in first_povs() for task in pov.tasks} | {"Mossgate Bank"}
    for activity in told:
        assert isinstance(activity.details, dict)
        assert activity.details["title"] in titles
        assert activity.user_id in PEOPLE


def test_a_burst_is_by_all_on_all() -> None:
    activities = list(burst(1000))
    assert len(activities) == 1000
    by = Counter((activity.user_id, activity.pov_id) for activity in activities)
    assert len(by) == len(PEOPLE) * len(first_povs())
    assert max(by.values()) - min(by.values()) <= 1
