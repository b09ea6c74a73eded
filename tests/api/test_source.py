"""The address in the audit is the connection's, or what a configured proxy says, if that is an address."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from api.source import networks, source
from eventlog import schema
from tests.api.served import Api, served
from tests.conftest import making_roles
from tests.servers import Cluster
from workers import embedded
from workers.settings import SettingRefused, Settings

FORMULA = '=HYPERLINK("http://evil.example","x")'


def recorded(api: Api, named: str, **headers: str) -> str:
    done = api.done("POST", "/v1/tenants", {"name": named}, headers=headers)
    (entry,) = api.shown(done, "/v1/audit", params={"resource": f"tenant/{named}"}).json()["items"]
    address: str = entry["source"]
    return address


def test_what_a_client_claims_is_not_believed(api: Api, named: str) -> None:
    for n, claimed in enumerate((FORMULA, "203.0.113.9", "203.0.113.9, 127.0.0.1")):
        assert recorded(api, f"{named}-{n}", **{"X-Forwarded-For": claimed}) == "127.0.0.1"
    assert recorded(api, f"{named}-f", Forwarded="for=203.0.113.9") == "127.0.0.1"


@pytest.fixture
def behind_a_proxy(postgres: Cluster) -> Iterator[Api]:
    name = f"test_proxy_{uuid.uuid4().hex}"
    owner, service = make_conninfo(postgres.owner, dbname=name), make_conninfo(postgres.service, dbname=name)
    with psycopg.connect(postgres.owner, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        with making_roles(postgres):
            schema.prepare(owner, service_role=embedded.SERVICE, service_password=postgres.service_password)
    with served(service, trusted_proxies=("127.0.0.0/8",)) as url:
        yield Api(url, service)
    with psycopg.connect(postgres.owner, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def test_a_configured_proxy_is_believed_as_far_as_it_names_an_address(behind_a_proxy: Api) -> None:
    for n, (said, wanted) in enumerate(
        (("203.0.113.9", "203.0.113.9"), (FORMULA, "127.0.0.1"), (f"{FORMULA}, 203.0.113.9", "203.0.113.9"))
    ):
        assert recorded(behind_a_proxy, f"p-{n}", **{"X-Forwarded-For": said}) == wanted


@pytest.mark.parametrize(
    ("peer", "said", "wanted"),
    [
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["1.2.3.4, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["1.2.3.4", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["=1+1, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.1", ["fe80::1%=HYPERLINK(1)"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:DB8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["[2001:DB8::1]"], "2001:db8::1"),
        ("10.0.0.1", ["203.0.113.9:port"], "10.0.0.1"),
        ("10.0.0.1", ["2001:DB8::1"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        (None, ["203.0.113.9"], None),
    ],
)
def test_it_is_read_backwards_from_proxy_to_proxy(peer: str | None, said: list[str], wanted: str | None) -> None:
    headers = [(b"x-forwarded-for", text.encode()) for text in said]
    assert source(peer, headers, trusted=networks(["10.0.0.0/8"])) == wanted


def test_a_proxy_that_is_none_is_refused_at_the_start() -> None:
    told = Settings.from_environment({"BERTH_TRUSTED_PROXIES": "10.0.0.5, 10.1.0.0/24"})
    assert told.trusted_proxies == ("10.0.0.5/32", "10.1.0.0/24")
    assert Settings.from_environment({"BERTH_TRUSTED_PROXIES": ""}).trusted_proxies == ()
    for wrong in ("proxy.example", "10.0.0.1/8", "*"):
        with pytest.raises(SettingRefused):
            Settings.from_environment({"BERTH_TRUSTED_PROXIES": wrong})
