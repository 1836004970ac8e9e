"""Where a server is, however it is written; tests/cli/test_remote.py has all the ways."""

from __future__ import annotations

import pytest

from pov_rt.remote.addresses import at_unix, parse_url


def test_a_unix_socket_is_shown_by_its_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    found = at_unix("run/x.sock", "rt.example")
    assert (found.unix, found.http, found.name) == (
        "/run/x.sock",
        "http://rt.example",
        "unix:run/x.sock",
    )
    assert parse_url("unix:/run/x.sock").socket == "ws://localhost/ws/"


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("ws://h/ws/x?device=a", "http://h"),
        ("https://me:secret@rt.example:8443/base/", "https://rt.example:8443/base"),
        ("unix:/run/me@here.sock", "unix:/run/me@here.sock"),
    ],
)
def test_people_are_shown_no_query_and_no_password(url: str, name: str) -> None:
    assert parse_url(url).name == name


@pytest.mark.parametrize("url", ["ftp://h", "http://", "", "http://h:0", "http://h:x"])
def test_what_is_no_address_is_named(url: str) -> None:
    with pytest.raises(ValueError, match="is no address; write it like"):
        parse_url(url)
