"""The words that people give to resources."""

import pytest
from pydantic import ValidationError

from commands.catalogue import COMMANDS
from domain.tenant import KIND as TENANT
from tests.deciding import Site


@pytest.mark.parametrize("key", ["部門", "cost center", "example.com/team", "a:b", "x" * 128])
def test_a_label_s_key_may_be_of_any_script(key: str) -> None:
    site = Site()
    site.given("tenant.create", name="acme", labels={key: "支付"})
    tenant = site.fleet.get(TENANT, "acme")
    assert tenant is not None
    assert tenant.about.labels == {key: "支付"}


@pytest.mark.parametrize("key", ["", "a=b", "a\0", "a\nb", "x" * 129, "a\u202eb", "a\x9bb", "a\x1b[2J", "a\u200bb"])
def test_a_label_s_key_has_no_equals_sign_and_nothing_that_is_not_printed(key: str) -> None:
    with pytest.raises(ValidationError):
        COMMANDS["tenant.create"].model_validate({"name": "acme", "labels": {key: "x"}})


@pytest.mark.parametrize("field", ["display_name", "external_id", "description"])
@pytest.mark.parametrize("text", ["a\x1b[2J", "a\x9b2J", "a\u202etxt", "a\0", "a\x07"])
def test_words_hold_no_character_that_moves_a_cursor_or_turns_text_round(field: str, text: str) -> None:
    for kind, body in (("tenant.create", {"name": "acme"}), ("tenant.update", {"tenant": "acme"})):
        with pytest.raises(ValidationError, match=r"U\+"):
            COMMANDS[kind].model_validate({**body, field: text})
        with pytest.raises(ValidationError, match=r"U\+"):
            COMMANDS[kind].model_validate({**body, "labels": {"team": text}})


@pytest.mark.parametrize("words", ["租戶 ＡＢＣ", "straße – naïve", "می\u200cخواهم", "👩\u200d🔧 on call"])
def test_words_may_be_of_any_script(words: str) -> None:
    said = {"display_name": words, "external_id": words, "description": f"{words}\n\t{words}", "labels": {"a": words}}
    COMMANDS["tenant.create"].model_validate({"name": "acme", **said})


def test_a_key_from_before_such_were_refused_can_still_be_removed() -> None:
    patch = {"tenant": "acme", "labels": {"a\u202eb": None}}
    assert COMMANDS["tenant.update"].model_validate(patch).model_dump(exclude_unset=True) == patch
