"""One served API for all of a session's tests: each uses names of its own."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from eventlog import schema
from tests.api.served import Api, served
from tests.servers import Cluster
from workers import embedded


@pytest.fixture(scope="session")
def api(postgres: Cluster) -> Iterator[Api]:
    name = f"test_api_{uuid.uuid4().hex}"
    owner, service = make_conninfo(postgres.owner, dbname=name), make_conninfo(postgres.service, dbname=name)
    with psycopg.connect(postgres.owner, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        connection.execute("SELECT pg_advisory_lock(1)")
        schema.prepare(owner, service_role=embedded.SERVICE, service_password=postgres.service_password)
        connection.execute("SELECT pg_advisory_unlock(1)")
    with served(service) as url:
        yield Api(url, service)
    with psycopg.connect(postgres.owner, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def named() -> str:
    """A prefix for names of a test's own."""
    return f"n{uuid.uuid4().hex[:8]}"
