"""Tokens: who can always get in, and that nobody locks everybody out."""

from commands.tokens import hash_of
from commands.writer.gateway import Actor
from domain.token import KIND as TOKEN
from tests.deciding import ENGINE, HOUR_US, Site

OWNER = Actor("admin", "admin")
FIRST, SECOND = hash_of("first"), hash_of("second")


def a_site() -> Site:
    site = Site()
    site.given("token.install", actor=ENGINE, name="admin", hash=FIRST)
    return site


def test_the_owners_new_secret_replaces_the_one_that_was() -> None:
    site = a_site()
    answer = site.given("token.install", actor=ENGINE, name="admin", hash=SECOND)
    assert site.topics(answer) == ["token.reset", "command.accepted"]
    token = site.fleet.get(TOKEN, "admin")
    assert token is not None
    assert (token.hash, token.role, token.state) == (SECOND, "admin", "active")


def test_a_secret_that_was_replaced_never_comes_back() -> None:
    site = a_site()
    site.given("token.install", actor=ENGINE, name="admin", hash=SECOND)
    for known in (FIRST, SECOND):
        assert site.topics(site.given("token.install", actor=ENGINE, name="admin", hash=known)) == ["command.accepted"]
    token = site.replayed().get(TOKEN, "admin")
    assert token is not None
    assert token.hash == SECOND


def test_a_revoked_administrator_stays_out_until_the_owner_makes_a_new_secret() -> None:
    site = a_site()
    site.given("token.create", name="ops", role="admin")
    site.given("token.revoke", token="admin")
    site.given("token.install", actor=ENGINE, name="admin", hash=FIRST)  # an engine that starts with the old file
    token = site.fleet.get(TOKEN, "admin")
    assert token is not None
    assert token.state == "revoked"
    site.given("token.install", actor=ENGINE, name="admin", hash=SECOND)
    token = site.fleet.get(TOKEN, "admin")
    assert token is not None
    assert token.state == "active"


def test_the_owner_gets_in_where_others_have_tokens_and_admin_is_not_among_them() -> None:
    site = Site()
    site.given("token.create", name="ops", role="admin")
    assert site.given("token.install", actor=ENGINE, name="admin", hash=FIRST).status == 201
    assert site.given("token.revoke", token="ops").status == 200


def test_a_token_that_is_revoked_is_not_suggested_for_itself() -> None:
    site = a_site()
    site.given("token.create", name="ops", role="viewer")
    site.given("token.revoke", token="ops")
    assert site.refused("not_found", "token.revoke", token="ops")["did_you_mean"] is None


def test_an_administrator_whose_time_is_over_is_not_another_one() -> None:
    site = a_site()
    site.given("token.create", actor=OWNER, name="ops", role="admin", expires_at="2026-09-21T15:00:00Z")
    site.now += 1_000 * HOUR_US
    assert "last admin" in site.refused("conflict", "token.revoke", token="admin", actor=OWNER)["detail"]
    site.given("token.create", actor=OWNER, name="ops-2", role="admin")
    site.given("token.revoke", token="admin", actor=OWNER)
