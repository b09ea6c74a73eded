"""Lists inside a resource, which stop somewhere and say so."""

from typing import Any

INNER_LIST_MAX = 1_000
READ_MAX = INNER_LIST_MAX + 1  # one more than is shown, which tells that there are more


def cut(document: dict[str, Any], field: str) -> dict[str, Any]:
    """The document, with the list that is its last member at its longest, and `<field>_truncated` if it had more."""
    if len(document[field]) > INNER_LIST_MAX:
        document[field] = document[field][:INNER_LIST_MAX]
        document[field + "_truncated"] = True
    return document
