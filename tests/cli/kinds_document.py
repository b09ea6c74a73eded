"""What GET /v1/kinds answers: what the command line is made from."""

import json
from typing import Any

from api.reply import encode
from api.routes.kinds import described_kinds


def document() -> Any:
    """A copy of one's own, which a test may change."""
    return json.loads(encode(described_kinds()))
