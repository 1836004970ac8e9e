"""Browsers, an app's site, and the way between them and the server.

A browser runs once for all tests of a process; each test has profiles of its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from shutil import copytree

import pytest

from tests.browser.bidi import Firefox
from tests.browser.chromium import Chromium
from tests.browser.flows import PAGE, SERVED
from tests.browser.site import Site
from tests.browser.tabs import Browser, Loop, Profile


class Profiles:
    """Makes profiles that are closed after the test; what a page has not caught fails that."""

    def __init__(self) -> None:
        self._made: list[Profile] = []
        self._closing = ExitStack()

    def __call__(self, browser: Browser) -> Profile:
        profile = browser.profile()
        self._made.append(profile)
        self._closing.callback(profile.close)
        return profile

    def close(self) -> None:
        """Close all of them; it may be said again."""
        self._closing.close()

    @property
    def errors(self) -> list[str]:
        """What no page of them has caught."""
        return [error for profile in self._made for tab in profile.tabs for error in tab.errors]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Function) -> None:
    """Close the pages before any fixture that serves them ends: one may still be loading."""
    profiles = getattr(item, "funcargs", {}).get("profiles")
    if profiles is not None:
        profiles.close()


@pytest.fixture(scope="session")
def loop() -> Iterator[Loop]:
    with Loop() as running:
        yield running


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs a browser; as root:  apt-get install {name}")
    return found


@pytest.fixture(scope="session")
def chromium(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(loop, program("chromium"), tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture(scope="session")
def firefox(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    with Firefox(loop, program("firefox-esr"), tmp_path_factory.mktemp("firefox")) as running:
        yield running


@pytest.fixture(scope="session", params=["chromium", "firefox"])
def browser(request: pytest.FixtureRequest) -> Browser:
    """Return each browser in turn."""
    running: Browser = request.getfixturevalue(request.param)
    return running


@pytest.fixture(scope="session", params=["chromium", "firefox"])
def without_storage(
    request: pytest.FixtureRequest, loop: Loop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    """Return each browser as people have it who forbid all cookies: pages cannot store anything."""
    folder = tmp_path_factory.mktemp("without_storage")
    browser: Browser
    if request.param == "chromium":
        forbidden = {"profile": {"default_content_setting_values": {"cookies": 2}}}
        browser = Chromium(loop, program("chromium"), folder, forbidden)
    else:
        browser = Firefox(
            loop, program("firefox-esr"), folder, {"network.cookie.cookieBehavior": 2}
        )
    with browser:
        yield browser


@pytest.fixture(scope="session")
def small_disk(loop: Loop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    """Return a browser in which pages can store 2 MB, as if the disk were nearly full.

    Chromium has no such setting, and 156 heeds `Storage.overrideQuotaForOrigin` no more.
    """
    limit = {"dom.quotaManager.temporaryStorage.fixedLimit": 2000}
    folder = tmp_path_factory.mktemp("small_disk")
    with Firefox(loop, program("firefox-esr"), folder, limit) as running:
        yield running


@pytest.fixture
def profiles() -> Iterator[Profiles]:
    made = Profiles()
    yield made
    made.close()
    assert not made.errors


@pytest.fixture
def profile(browser: Browser, profiles: Profiles) -> Profile:
    """Return a new profile of each browser."""
    return profiles(browser)


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with pages, and at `client/` what servers have there."""
    folder = tmp_path_factory.mktemp("built")
    copytree(PAGE, folder, dirs_exist_ok=True)
    copytree(SERVED, folder / "client")
    return folder


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """Return the folder that the site serves; a test that has one overrides this."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.fixture
def site(loop: Loop, pages: Path) -> Iterator[Site]:
    with Site(loop, pages) as serving:
        yield serving
