"""Servers that tests of the study need."""

from collections.abc import Iterator

import pytest

from tests.tuning.postgres import MissingPostgresError, Postgres


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """A running PostgreSQL server with an empty database, for one test."""
    try:
        server = Postgres()
    except MissingPostgresError as error:
        pytest.skip(str(error))
    with server:
        yield server
