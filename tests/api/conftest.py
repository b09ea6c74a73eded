"""One served API for all of a session's tests: each uses names of its own."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from eventlog import schema
from tests.api.served import Api, served
from tests.conftest import making_roles
from tests.servers import Cluster
from workers import embedded


@pytest.fixture(scope="session")
def api(postgres: Cluster) -> Iterator[Api]:
    name = f"test_api_{uuid.uuid4().hex}"
    owner, service = make_conninfo(postgres.owner, dbname=name), make_conninfo(postgres.service, dbname=name)
    with psycopg.connect(postgres.owner, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        with making_roles(postgres):
            schema.prepare(owner, service_role=embedded.SERVICE, service_password=postgres.service_password)
    with served(service) as url:
        yield Api(url, service)
    with psycopg.connect(postgres.owner, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def named() -> str:
    """A prefix for names of a test's own."""
    return f"n{uuid.uuid4().hex[:8]}"


@pytest.fixture
def one_host(api: Api, named: str) -> str:
    """A tenant with quota in a group with one host, all of the same name."""
    for path, body in (
        ("/v1/tenants", {"name": named}),
        ("/v1/groups", {"name": named}),
        ("/v1/hosts", {"name": named, "group": named, "capacity": {"cpu": 16}}),
    ):
        api.done("POST", path, body)
    api.done("PUT", f"/v1/groups/{named}/quotas/{named}", {"limits": {"cpu": 16}})
    return named
