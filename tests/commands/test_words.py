"""The words that people give to resources."""

import pytest
from pydantic import ValidationError

from commands.catalogue import COMMANDS
from tests.deciding import Site


@pytest.mark.parametrize("key", ["部門", "cost center", "example.com/team", "a:b", "x" * 128])
def test_a_label_s_key_may_be_of_any_script(key: str) -> None:
    site = Site()
    site.given("tenant.create", name="acme", labels={key: "支付"})
    tenant = site.fleet.tenant("acme")
    assert tenant is not None
    assert tenant.about.labels == {key: "支付"}


@pytest.mark.parametrize("key", ["", "a=b", "a\0", "a\nb", "x" * 129])
def test_a_label_s_key_has_no_equals_sign_and_no_control_character(key: str) -> None:
    with pytest.raises(ValidationError):
        COMMANDS["tenant.create"].model_validate({"name": "acme", "labels": {key: "x"}})
