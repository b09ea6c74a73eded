"""The body of a creation, as the API takes it, from a line of the trace."""

from typing import Any

from cli.replay.labels import Labels
from cli.replay.trace import Request


class Bodies:
    """Keeps the names of the sets, so that each has the same one every time."""

    def __init__(self, *, group: str, tenant: str) -> None:
        self._group = group
        self._tenant = tenant
        self._sets = Labels()

    def of(self, request: Request) -> dict[str, Any]:
        body: dict[str, Any] = {
            "tenant": self._tenant,
            "name": request.vm,
            "group": self._group,
            "resources": request.resources,
        }
        if request.rule:
            body["rules"] = [self.rule(request)]
        return body

    def rule(self, request: Request) -> dict[str, Any]:
        """The trace's rule as the API's. A set is numbered per rule in traces: set 0 of two rules is two sets."""
        named = self._sets.of(request.set, f"{request.rule}-{request.set}")
        if request.rule == "fault_domain":
            return {"type": "partition", "set": named, "level": "rack", "partition": request.domain}
        return {"type": request.rule, "set": named, "level": "host"}
