"""What controllers may report."""

from typing import Any

import pytest
from pydantic import ValidationError

from commands.catalogue import COMMANDS


@pytest.mark.parametrize("outputs", [{"a": "b\0"}, {"a\0": "b"}, {"a": [{"b": "\0"}]}, {"a": [{"\0": 1}]}])
def test_a_report_with_a_nul_anywhere_in_its_outputs_is_not_valid(outputs: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        COMMANDS["operation.report"].model_validate(
            {
                "operation": "01a20f26-aa2c-7525-8531-d59adc8dacf6",
                "step": "vm.create",
                "attempt": 1,
                "outcome": "succeeded",
                "outputs": outputs,
            }
        )
