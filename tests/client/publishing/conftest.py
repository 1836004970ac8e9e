"""Databases for the tests of the outbox and its relay."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.publishing.databases import Place, find_postgresql, postgresql


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str | None]:
    """Run one PostgreSQL server for all tests of this process; None where there is none."""
    if find_postgresql() is None:
        yield None
        return
    with postgresql() as where:
        yield where


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path, postgresql_server: str | None) -> Place:
    """Return a database, of each kind, with empty tables."""
    if request.param == "postgresql":
        return at_postgresql(postgresql_server)
    found = Place("sqlite", str(tmp_path / "app.db"))
    found.clear()
    return found


@pytest.fixture
def postgres(postgresql_server: str | None) -> Place:
    """Return a PostgreSQL database with empty tables."""
    return at_postgresql(postgresql_server)


def at_postgresql(server: str | None) -> Place:
    if server is None:
        pytest.skip("there is no PostgreSQL: apt-get install postgresql")
    found = Place("postgresql", server)
    found.clear()
    return found
