"""Every state of the components says what it has to, and is fit for everybody.

With `PICTURES=FOLDER` a picture of each is kept there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from tests.browser.chromium import ChromiumTab
from tests.browser.gallery.shown import Gallery, fit, media, touch
from tests.browser.tabs import PageError

LEAST_HIT = 24
LEAST_TOUCH = 44
"""px: WCAG 2.2, 2.5.8, and what a finger hits."""
MARGIN = 16
"""px between the page's edge and the element, by the gallery's style sheet."""
LONGEST_FADE_MS = 80
"""What may move for who wants less motion."""

Check = Callable[[Gallery], Iterable[str]]


def problems(gallery: Gallery, states: Iterable[str], check: Check, **how: str | int) -> str:
    """Show states one after the other; return what a check finds in them, a line each."""
    found = []
    for state in states:
        try:
            gallery.show(state, **how)
            found += [f"{state}: {each}" for each in check(gallery)]
        except PageError as error:
            found.append(f"{state}: {str(error).splitlines()[0]}")
    return "\n".join(found)


LEFT_EDGES = """(...parts) => parts.map(each =>
  gallery.stage.widget.shadowRoot.querySelector(each).getBoundingClientRect().left)"""


def tab_of(gallery: Gallery) -> ChromiumTab:
    assert isinstance(gallery.tab, ChromiumTab)
    return gallery.tab


def astray(kind: str) -> Check:
    """Return a check that nothing leaves its place; it keeps pictures of a kind."""

    def check(shown: Gallery) -> list[str]:
        shown.picture(kind)
        return shown.find("astray")

    return check


@pytest.mark.timeout(180)
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_state_says_what_it_has_to_and_is_fit_for_all(gallery: Gallery, theme: str) -> None:
    def check(shown: Gallery) -> Iterable[str]:
        shown.picture(theme)
        yield from (f"axe: {each}" for each in shown.find("violations"))
        yield from (f"contrast {each}" for each in shown.find("faint"))
        yield from (f"hit area {each}" for each in shown.find("small", LEAST_HIT))
        yield from shown.find("astray")
        yield from (f"moves for {each}" for each in shown.find("moving", LONGEST_FADE_MS))

    with media(tab_of(gallery), prefers_reduced_motion="reduce"):
        found = problems(gallery, gallery.states, check, theme=theme)
    assert not found, found


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    ("width", "font"),
    [(280, "system"), (320, "pictures"), (720, "pictures")],
    ids=["280 with a wide font", "320", "720"],
)
def test_nothing_leaves_its_place_however_wide(gallery: Gallery, width: int, font: str) -> None:
    fit(tab_of(gallery), width + 2 * MARGIN)
    with media(tab_of(gallery), prefers_reduced_motion="reduce"):
        found = problems(gallery, gallery.states, astray(str(width)), width=width, font=font)
    assert not found, found


@pytest.mark.timeout(180)
def test_nothing_leaves_its_place_from_right_to_left(gallery: Gallery) -> None:
    with media(tab_of(gallery), prefers_reduced_motion="reduce"):
        found = problems(gallery, gallery.states, astray("rtl"), dir="rtl")
        axis = "[part~=status-bead]", "[part~=title]"
        gallery.show("live", dir="rtl")
        bead, title = gallery.tab.call(LEFT_EDGES, *axis)
    assert not found, found
    assert bead > title


@pytest.mark.timeout(180)
def test_compact_rows_are_accessible(gallery: Gallery) -> None:
    def check(shown: Gallery) -> Iterable[str]:
        shown.picture("compact")
        yield from shown.find("violations")
        yield from shown.find("small", LEAST_HIT)
        yield from shown.find("astray")

    with media(tab_of(gallery), prefers_reduced_motion="reduce"):
        found = problems(gallery, gallery.states, check, density="compact")
    assert not found, found


@pytest.mark.timeout(180)
def test_fingers_hit_what_can_be_pressed(gallery: Gallery) -> None:
    with touch(tab_of(gallery)), media(tab_of(gallery), prefers_reduced_motion="reduce"):
        assert gallery.tab.evaluate("matchMedia('(pointer: coarse)').matches")

        def check(shown: Gallery) -> Iterable[str]:
            shown.picture("touch")
            yield from shown.find("small", LEAST_TOUCH)
            yield from shown.find("astray")

        found = problems(gallery, gallery.states, check, width=320)
    assert not found, found


@pytest.mark.timeout(180)
def test_nothing_leaves_its_place_in_forced_colours(gallery: Gallery) -> None:
    with media(tab_of(gallery), forced_colors="active", prefers_reduced_motion="reduce"):
        found = problems(gallery, gallery.states, astray("forced colours"))
    assert not found, found


FAULTS = {
    "faint": "part('line').style.color = '#bbb'",
    "small": "button().style.cssText = 'width: 12px; height: 12px; min-width: 0; min-height: 0'",
    "astray": "part('line').style.minWidth = '500px'",
    "violations": "button().removeAttribute('aria-label')",
    "moving": "part('line').animate([{opacity: 0}, {opacity: 1}], 1000)",
    "forbidden": "part('line').setAttribute('style', 'color: red')",
}
"""For each check what it has to find, done to a component that is without fault."""
PLANT = """() => {{
  const root = gallery.stage.widget.shadowRoot
  const part = name => root.querySelector(`[part~=${{name}}]`)
  const button = () => root.querySelector('button[aria-label]')
  {fault}
}}"""


@pytest.mark.parametrize("check", FAULTS)
def test_the_checks_find_what_is_planted(gallery: Gallery, check: str) -> None:
    bounds = {"small": [LEAST_HIT], "moving": [LONGEST_FADE_MS]}.get(check, [])

    def found() -> list[str]:
        return gallery.forbidden if check == "forbidden" else gallery.find(check, *bounds)

    with media(tab_of(gallery), prefers_reduced_motion="reduce"):
        gallery.show("live")
        assert found() == []
        gallery.tab.call(PLANT.format(fault=FAULTS[check]))
        assert len(found()) > 0
    gallery.forget()


def test_a_state_that_says_something_else_is_found(gallery: Gallery) -> None:
    with pytest.raises(PageError, match="never came: the words"):
        gallery.show("live", says="Offline since 14:02")


@pytest.mark.timeout(180)
def test_firefox_shows_every_state(in_firefox: Gallery) -> None:
    found = problems(in_firefox, in_firefox.states, lambda shown: shown.find("astray"))
    assert not found, found


@pytest.mark.timeout(180)
def test_twice_as_large_a_text_stays_in_its_place(large_text: Gallery) -> None:
    assert large_text.tab.evaluate("gallery.isTextLarge()")
    for width in (280, 400):
        found = problems(
            large_text, large_text.states, lambda shown: shown.find("astray"), width=width
        )
        assert not found, found
