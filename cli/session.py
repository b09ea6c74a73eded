"""One call of `berth`: where it asks, how it writes, in which form it answers. The options of a command fill it."""

import time
from collections.abc import Iterator
from typing import Any

from cli import contexts, kinds, output, terminal
from cli.connection import NOT_BERTH, TIMEOUT_S, Answer, Connection, Query, header_text, new_key
from cli.errors import Failed, TimedOut
from cli.kinds import Kind

PREFER_WAIT_S_MAX = 60
PAGE_ITEMS = 1000


class Session:
    """What the flags said, and the connection that they lead to (opened when it is first used)."""

    def __init__(self) -> None:
        self.url: str | None = None
        self.token_file: str | None = None
        self.context: str | None = None
        self.form: str = "table"
        self.headers = True
        self.as_of: str | None = None
        self.dry_run = False
        self.wait_s: float | None = None
        self.reason: str | None = None
        self.key: str | None = None
        self._connection: Connection | None = None

    @property
    def place(self) -> contexts.Place:
        return contexts.find(url=self.url, token_file=self.token_file, context=self.context)

    @property
    def connection(self) -> Connection:
        if self._connection is None:
            place = self.place
            self._connection = Connection(place.url, place.token)
        return self._connection

    @property
    def is_structured(self) -> bool:
        return self.form in ("json", "yaml", "csv")

    # Reads

    def get(self, path: str, query: Query | None = None) -> Answer:
        return self.connection.request("GET", path, query=[*(query or []), *self._moment()])

    def read(self, kind: Kind, name: str, *, min_position: int | None = None) -> Answer:
        query = [("min_position", str(min_position))] if min_position else []
        return self.get(kinds.path(kind, name), query)

    def items(self, path: str, query: Query, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Everything in a list, page by page, or its first `limit`."""
        left, cursor = limit, None
        while left is None or left > 0:
            page_items = PAGE_ITEMS if left is None else min(left, PAGE_ITEMS)
            page = [*query, ("limit", str(page_items)), *([("cursor", cursor)] if cursor else [])]
            content = self.get(path, page).json()
            if not isinstance(content, dict) or not isinstance(content.get("items"), list):
                raise Failed(NOT_BERTH)
            yield from content["items"]
            cursor = content.get("next_cursor")
            if cursor is None:
                return
            left = None if left is None else left - len(content["items"])

    def print_csv(self, path: str, query: Query, *, limit: int | None = None, newest_last: bool = False) -> None:
        """Print a list as the API's own CSV, whose columns do not depend on its rows."""
        rows: list[list[str]] = []
        left, cursor = limit, None
        while left is None or left > 0:
            page_items = PAGE_ITEMS if left is None else min(left, PAGE_ITEMS)
            page = [*query, ("limit", str(page_items)), *([("cursor", cursor)] if cursor else []), *self._moment()]
            answer = self.connection.request("GET", path, query=page, headers={"Accept": "text/csv"})
            titles, *found = answer.csv()
            rows += found
            cursor = answer.next_cursor
            if cursor is None:
                break
            left = None if left is None else left - len(found)
        output.rows([titles] if self.headers else [], rows[::-1] if newest_last else rows)

    def _moment(self) -> Query:
        return [("as_of", self.as_of)] if self.as_of else []

    # Writes

    def command(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        if_match: str | None = None,
        if_none_match: bool = False,
        key: str | None = None,
    ) -> Answer:
        """Send one command, and wait for its operation if `--wait` says so.

        Waiting longer than the API does at once is the same request with the same key again, which does nothing but
        wait on.

        Raises:
            Refused: it was refused, or its operation failed while it was waited for (`operation_failed`).
            TimedOut: the operation is still under way after `--wait`.
        """
        headers = {"Idempotency-Key": key or self.key or new_key()}
        if self.reason:
            headers["Berth-Reason"] = header_text(self.reason)
        if if_match:
            headers["If-Match"] = if_match
        if if_none_match:
            headers["If-None-Match"] = "*"
        query = [("dry_run", "true")] if self.dry_run else []
        until = None if self.wait_s is None or self.dry_run else time.monotonic() + self.wait_s
        while True:
            left_s = 0.0 if until is None else until - time.monotonic()
            if left_s > 0:
                headers["Prefer"] = f"wait={max(1, min(PREFER_WAIT_S_MAX, round(left_s)))}"
            answer = self.connection.request(method, path, query=query, body=body, headers=headers, timeout_s=TIMEOUT_S)
            if answer.status != 202 or until is None:
                self._warn(answer.json())
                return answer
            if until - time.monotonic() <= 0:
                operation = (answer.json() or {}).get("operation")
                raise TimedOut(
                    f"operation {operation} is still under way after {self.wait_s:g} s; it goes on. "
                    f"See `berth describe operation {operation}`"
                )

    def rehearse(self, commands: list[dict[str, Any]]) -> None:
        """Have several commands decided as one, in dry run.

        Raises:
            Refused: one of them would be refused: `index` says which.
        """
        answer = self.connection.request(
            "POST",
            "/v1/commands",
            query=[("dry_run", "true")],
            body={"atomic": True, "commands": commands},
            headers={"Idempotency-Key": new_key()},  # remembered by nobody, but it makes a repeat safe
        )
        for result in answer.json()["results"]:
            self._warn(result)

    def _warn(self, content: Any) -> None:
        for warning in (content or {}).get("warnings") or ():
            near = warning.get("did_you_mean")
            meant = f"; did you mean {near if isinstance(near, str) else ', '.join(near)}?" if near else ""
            terminal.say(f"berth: warning: {warning.get('field')}: {warning.get('message')}{meant}", err=True)

    def tell(self, verb: str, kind: Kind, name: str, answer: Answer) -> None:
        """Say what a command did: a sentence, the name, or the answer as it came."""
        content = answer.json() or {}
        if self.is_structured:
            return output.data(content, form=self.form, headers=self.headers)
        if self.form == "name":
            return terminal.say(name)
        resource = content.get("resource") or {}
        words = [f"{kind.name} {name} {verb}" + (" (dry run, nothing written)" if self.dry_run else "")]
        if verb == "deleted":
            return terminal.say(words[0])  # `resource` is its last state, which is over
        if isinstance(host := resource.get("host"), str):
            words.append(f"on host {host}")
        if answer.status == 202 and content.get("operation") and not self.dry_run:
            words.append(f"under way: operation {content['operation']}")
        elif (state := resource.get("state")) and state != verb:
            words.append(str(state))
        terminal.say(", ".join(words))
