"""The gallery's page, open in a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.browser.bidi import Firefox
from tests.browser.chromium import Chromium, ChromiumTab
from tests.browser.conftest import program
from tests.browser.gallery.pictures import lay_out
from tests.browser.gallery.shown import Gallery, build, fit
from tests.browser.site import STRICT, Site
from tests.browser.tabs import Browser, Loop

PICTURES = os.environ.get("PICTURES")
"""In which folder pictures are kept, from the root of the checkout."""


@pytest.fixture(scope="session")
def pictures() -> Iterator[Path | None]:
    """Return where pictures are to be kept; they are laid out in the end."""
    folder = Path(__file__).parents[3] / PICTURES if PICTURES else None
    yield folder
    if folder is not None:
        lay_out(folder)


@pytest.fixture(scope="session")
def gallery_site(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("gallery")
    build(folder)
    with Site(loop, folder) as site:
        site.policy = STRICT
        yield site


@contextmanager
def opened(browser: Browser, site: Site, pictures: Path | None = None) -> Iterator[Gallery]:
    profile = browser.profile()
    try:
        tab = profile.open("about:blank")
        tab.show()
        yield Gallery.open(tab, site, pictures)
    finally:
        profile.close()


@contextmanager
def checked(gallery: Gallery) -> Iterator[Gallery]:
    """Give the page to a test, after which its policy must have forbidden nothing."""
    if isinstance(gallery.tab, ChromiumTab):
        fit(gallery.tab)
    gallery.forget()
    gallery.tab.errors.clear()  # another test's, which told of them
    yield gallery
    gallery.tab.call("() => gallery.clear()")
    assert not gallery.forbidden
    assert not gallery.tab.errors


@pytest.fixture(scope="session")
def in_chromium(chromium: Chromium, gallery_site: Site, pictures: Path | None) -> Iterator[Gallery]:
    with opened(chromium, gallery_site, pictures) as gallery:
        yield gallery


@pytest.fixture
def gallery(in_chromium: Gallery) -> Iterator[Gallery]:
    """Return the page in Chromium, in a tab that all tests share."""
    with checked(in_chromium) as gallery:
        yield gallery


@pytest.fixture
def in_firefox(firefox: Firefox, gallery_site: Site) -> Iterator[Gallery]:
    with opened(firefox, gallery_site) as gallery, checked(gallery):
        yield gallery


@pytest.fixture
def large_text(
    loop: Loop, gallery_site: Site, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gallery]:
    """Return the page in a browser whose user has text, and nothing else, at twice its size."""
    twice = {"browser.display.os-zoom-behavior": 2, "ui.textScaleFactor": 200}
    folder = tmp_path_factory.mktemp("large_text")
    with (
        Firefox(loop, program("firefox-esr"), folder, twice) as browser,
        opened(browser, gallery_site) as gallery,
        checked(gallery),
    ):
        yield gallery
