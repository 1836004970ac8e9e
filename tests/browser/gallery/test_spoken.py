"""What a screen reader says of the components: little, once, and in time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise

import pytest

from tests.browser.gallery.shown import Gallery

APART_MS = 5000
"""Between two phrases of what is new."""
AT_ONCE_MS = 100
ROWS = 6
"""Of the state `live`, a group being one."""


@dataclass(frozen=True)
class Spoken:
    at: float
    """ms after the story began."""
    how: str
    phrase: str


def hear(gallery: Gallery, story: str) -> list[Spoken]:
    heard = gallery.tab.call("story => gallery.hear(story)", story)
    return [Spoken(**each) for each in heard]


def phrases(heard: list[Spoken]) -> list[str]:
    return [each.phrase for each in heard]


@pytest.mark.parametrize(
    "story", ["nothing", "own", "blink", "restarting", "renewing", "asleep", "typing"]
)
def test_what_nobody_has_to_hear_is_not_spoken(gallery: Gallery, story: str) -> None:
    assert hear(gallery, story) == []


def test_what_is_new_is_one_phrase(gallery: Gallery) -> None:
    heard = hear(gallery, "three")
    assert phrases(heard) == ["3 new activities on 2 PoVs"]
    assert heard[0].how == "polite"


@pytest.mark.parametrize(("story", "number"), [("burst", 1000), ("burst that goes on", 3000)])
def test_a_burst_is_at_most_one_phrase_in_five_seconds(
    gallery: Gallery, story: str, number: int
) -> None:
    heard = hear(gallery, story)
    assert heard
    times = [each.at for each in heard]
    assert all(later - earlier >= APART_MS for earlier, later in pairwise(times))
    told = [each.phrase.partition(" new activities on 2 PoVs") for each in heard]
    assert sum(int(count.replace(",", "")) for count, _, rest in told if not rest) == number


@pytest.mark.parametrize(
    ("story", "phrase"),
    [
        ("expired", "Your session ended. Sign in to go on"),
        ("ended", "This connection was ended. It is not tried again."),
        ("page error", "Stopped, this page has an error. Reload the page"),
    ],
)
def test_what_asks_for_the_person_is_spoken_at_once(
    gallery: Gallery, story: str, phrase: str
) -> None:
    (spoken,) = hear(gallery, story)
    assert (spoken.how, spoken.phrase) == ("assertive", phrase)
    assert spoken.at <= AT_ONCE_MS


@pytest.mark.parametrize(
    ("story", "least", "phrase"),
    [
        ("offline", 2000, "Offline since 14:13. You have everything up to then"),
        ("restarting for long", 5000, "Server restarting, back in seconds"),
        ("signed out", 0, "Signed out"),
    ],
)
def test_a_state_that_lasts_is_spoken_once_and_its_countdown_never(
    gallery: Gallery, story: str, least: int, phrase: str
) -> None:
    (spoken,) = hear(gallery, story)
    assert (spoken.how, spoken.phrase) == ("polite", phrase)
    assert least <= spoken.at <= least + 2500


def test_coming_back_says_what_came_in(gallery: Gallery) -> None:
    offline, back = hear(gallery, "back")
    assert offline.phrase == "Offline since 14:13. You have everything up to then"
    assert (back.how, back.phrase) == ("polite", "Live again, 12 updates came in")


@pytest.mark.parametrize("story", ["nothing", "own", "blink"])
def test_what_has_no_toast_is_not_spoken(gallery: Gallery, story: str) -> None:
    assert hear(gallery, f"toast: {story}") == []


def test_a_toast_is_spoken_once(gallery: Gallery) -> None:
    (spoken,) = hear(gallery, "toast: one")
    assert spoken.how == "polite"
    assert spoken.phrase == "Jonas Weber commented on Audit log export, Mossgate Bank"


def test_toasts_of_a_burst_are_at_most_one_phrase_in_five_seconds(gallery: Gallery) -> None:
    heard = hear(gallery, "toast: burst")
    assert heard
    assert all(later - earlier >= APART_MS for earlier, later in pairwise([x.at for x in heard]))
    assert phrases(heard)[-1] == "1,000 new activities on 2 PoVs"


@pytest.mark.parametrize(
    ("story", "phrase"),
    [("expired", "Your session ended"), ("unsent", "Your comment")],
)
def test_a_toast_that_asks_for_the_person_is_spoken_at_once(
    gallery: Gallery, story: str, phrase: str
) -> None:
    (spoken,) = hear(gallery, f"toast: {story}")
    assert (spoken.how, spoken.phrase.startswith(phrase)) == ("assertive", True)
    assert spoken.at <= AT_ONCE_MS


def test_rows_are_articles_of_a_feed_with_their_places(gallery: Gallery) -> None:
    gallery.show("live")
    read = gallery.tab.call("async () => (await gallery.reader()).readAll()")
    begin = read.index("feed, Activity")
    end = read.index("end of feed, Activity")
    articles = [each for each in read[begin:end] if each.startswith("article, ")]
    places = [re.search(r"position (\d+), set size", each) for each in articles]
    assert [place and int(place[1]) for place in places] == list(range(1, len(articles) + 1))
    assert len(articles) >= ROWS
    # What stands in a row is read when one goes on.
    text = " ".join(read[begin:end])
    assert "Audit log export" in text
    assert "“Their DBA wants it on before Thursday. I can pair at 15:00.”" in text
