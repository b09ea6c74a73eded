"""One call of `berth`: where it asks, how it writes, in which form it answers. The options of a command fill it."""

import time
from collections.abc import Iterator
from itertools import count
from typing import Any

from cli import contexts, discovery, operations, output, terminal
from cli.connection import NOT_BERTH, TIMEOUT_S, Answer, Connection, Query, header_text, new_key
from cli.discovery import Known
from cli.errors import Failed, Refused
from cli.kinds import Kind, Kinds

# The server does not end a wait for what gets stuck meanwhile; so it is asked for short ones, and looked between them.
PREFER_WAIT_S = (1, 2, 5)
PAGE_ITEMS = 1000
# What an answer has at least: of a command, and of one in a batch.
DONE = {"command": str, "position": int, "resource": dict | None, "warnings": list | None}
RESULT = {"status": int, "warnings": list | None}


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
        self._known: Known | None = None
        self._was_done_before = False  # the last command, under the caller's own key

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
    def kinds(self) -> Kinds:
        """The kinds that this server has.

        Raises:
            Failed: none were kept of it, and it cannot be asked.
        """
        if self._known is None:
            self._known = discovery.known(self.connection)
        return self._known.kinds

    def recall(self) -> Kinds:
        """The kinds as they were kept, however long ago, if any are; for whoever must answer at once."""
        if self._known is None:
            self._known = discovery.known(self.connection, old_is_good=True)
        return self._known.kinds

    def learns_more(self) -> bool:
        """Whether the server has other kinds now than those that were kept."""
        before = self._known
        if before is None or before.is_asked:
            return False
        self._known = discovery.known(self.connection, anew=True)
        return self._known.etag != before.etag

    @property
    def is_structured(self) -> bool:
        return self.form in ("json", "yaml", "csv")

    # Reads

    def get(self, path: str, query: Query | None = None) -> Answer:
        return self.connection.request("GET", path, query=[*(query or []), *self._moment()])

    def read(self, kind: Kind, name: str, *, min_position: int | None = None) -> Answer:
        query = [("min_position", str(min_position))] if min_position else []
        return self.get(kind.path(name), query)

    def items(self, path: str, query: Query, *, limit: int | None = None) -> Iterator[dict[str, Any]]:
        """Everything in a list, page by page, or its first `limit`."""
        left, cursor = limit, None
        while left is None or left > 0:
            page_items = PAGE_ITEMS if left is None else min(left, PAGE_ITEMS)
            page = [*query, ("limit", str(page_items)), *([("cursor", cursor)] if cursor else [])]
            answer = self.get(path, page)
            found = answer.objects("items")
            yield from found
            cursor = answer.json(next_cursor=str | None).get("next_cursor")
            if cursor is None:
                return
            left = None if left is None else left - len(found)

    def print_csv(self, path: str, query: Query, *, limit: int | None = None, newest_last: bool = False) -> None:
        """Print a list as the API's own CSV, whose columns do not depend on its rows."""
        rows: list[list[str]] = []
        left, asked = limit, [*query, *self._moment()]
        while left is None or left > 0:
            page_items = PAGE_ITEMS if left is None else min(left, PAGE_ITEMS)
            page = [*asked, ("limit", str(page_items))]
            answer = self.connection.request("GET", path, query=page, headers={"Accept": "text/csv"})
            titles, *found = answer.csv()
            rows += found
            if answer.next_page is None:
                break
            asked = [(name, value) for name, value in answer.next_page if name != "limit"]
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

        Waiting on is the same request with the same key again, which does nothing but that.

        Raises:
            Refused: it was refused, or its operation failed while it was waited for (`operation_failed`).
            Stuck: its operation waits for a person.
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
        for attempt in count():
            left_s = 0.0 if until is None else until - time.monotonic()
            if left_s > 0:
                wait_s = PREFER_WAIT_S[min(attempt, len(PREFER_WAIT_S) - 1)]
                headers["Prefer"] = f"wait={max(1, min(wait_s, round(left_s)))}"
            answer = self.connection.request(method, path, query=query, body=body, headers=headers, timeout_s=TIMEOUT_S)
            if attempt == 0:
                self._was_done_before = self.key is not None and "Berth-Replayed" in answer.headers
            if answer.status != 202 or until is None:
                self._warn(answer.json(**DONE))
                return answer
            operation = answer.json(**DONE).get("operation")
            operations.must_go_on(self.connection, operation)
            if until - time.monotonic() <= 0:
                raise operations.still_under_way(operation, self.wait_s or 0)
        raise AssertionError("waiting ends with an answer or raises")

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
        for result in answer.objects("results", count=len(commands), **RESULT):
            self._warn(result)

    def _warn(self, content: dict[str, Any]) -> None:
        for warning in content.get("warnings") or ():
            if not isinstance(warning, dict):
                raise Failed(NOT_BERTH)
            near = warning.get("did_you_mean")
            meant = f"; did you mean {near if isinstance(near, str) else ', '.join(near)}?" if near else ""
            terminal.say(f"berth: warning: {warning.get('field')}: {warning.get('message')}{meant}", err=True)

    def tell(
        self,
        done: str,
        kind: Kind,
        name: str,
        answer: Answer,
        *,
        doing: str | None = None,
        about: str = "",
        resource: dict[str, Any] | None = None,
    ) -> None:
        """Say what a command did: a sentence, the name, or the answer as it came.

        `doing` is the word for it while its operation is under way, `about` what it was to change; `resource` what it
        is now, if that is known better.
        """
        content = answer.json(**DONE)
        if resource is not None:
            content = {**content, "resource": resource}
        if self.is_structured:
            return output.data(content, form=self.form, headers=self.headers)
        if self.form == "name":
            return terminal.say(name)
        resource = content.get("resource") or {}
        host, state, operation = resource.get("host"), resource.get("state"), content.get("operation")
        is_under_way = answer.status == 202 and bool(operation) and not self.dry_run
        words = [f"{kind.name} {name} {doing or done if is_under_way else done}" + (f" ({about})" if about else "")]
        is_there = done != "deleted"  # of what is deleted `resource` is the last state, which is over
        if is_there and isinstance(host, str):
            words[0] += f" on host {host}"
        if is_under_way:
            words.append(f"under way: operation {operation}")
        elif is_there and state and str(state) not in done.split():
            words.append(f"is {state}")
        if self.dry_run:
            words.append("dry run, nothing written")
        elif self._was_done_before:
            words.append(f"already done by command {content.get('command')}, nothing done again")
        elif self._changed_nothing(content):
            words.append("was so already, nothing changed")
        terminal.say(terminal.printable(", ".join(words)))

    def _changed_nothing(self, content: dict[str, Any]) -> bool:
        """A command's record names the positions of what it changed. It is looked up only if the resource's last change
        is older than the event right before it."""
        position, version = content.get("position"), (content.get("resource") or {}).get("version")
        if content.get("operation") or not isinstance(position, int) or not isinstance(version, int):
            return False
        if version >= position - 1:
            return False
        try:
            query = [("after", str(position - 1)), ("until", str(position))]
            records = self.connection.request("GET", "/v1/events", query=query).objects("items", data=dict)
        except Refused:
            return False
        return [record["data"].get("positions") for record in records] == [[]]
