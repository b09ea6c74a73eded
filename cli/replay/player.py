"""Sends a trace's requests in its order and waits where the order asks for it."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cli.connection import Connection
from cli.errors import Refused, TimedOut
from cli.replay.bodies import Bodies
from cli.replay.stage import Stage
from cli.replay.tally import Tally
from cli.replay.trace import Request

DELETIONS_AT_ONCE = 16
DELETIONS_MAX = 1000  # in one run of them
DELETION_ATTEMPTS_MAX = 5
DELETION_S_MAX = 600.0
PREFER_WAIT = "wait=60"


class Player:
    """Plays one trace on one stage. `singles` creations are requests of their own, the others go in batches."""

    def __init__(self, connection: Connection, stage: Stage, tally: Tally, *, singles: int, batch: int) -> None:
        self._connection = connection
        self._stage = stage
        self._tally = tally
        self._singles_left = singles
        self._batch = batch
        self._bodies = Bodies(group=stage.group, tenant=stage.tenant)
        self._sent = 0
        self._local = threading.local()
        self._lines: list[Connection] = []

    def play(
        self,
        requests: list[Request],
        *,
        pace: Callable[[float], None] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Send all of them. `pace` is told each request's time and returns when it is due; no batches then.

        Raises:
            Refused: the API would not take the requests at all (a refusal of one VM is counted, not raised).
            TimedOut: a deletion did not end, so what follows it cannot be decided as the trace has it.
        """
        run: list[Request] = []
        is_paced = pace is not None
        pool = ThreadPoolExecutor(DELETIONS_AT_ONCE)
        try:
            for request in requests:
                if run and (run[0].action != request.action or (is_paced and run[0].time_s < request.time_s)):
                    run = self._send(run, pool, progress)
                if pace is not None:
                    pace(request.time_s)
                run.append(request)
                if len(run) >= self._length_max(run, is_paced=is_paced):
                    run = self._send(run, pool, progress)
            self._send(run, pool, progress)
        finally:
            pool.shutdown(cancel_futures=True)  # what is not sent yet when somebody interrupts us is not sent
            for line in self._lines:
                line.close()

    def _length_max(self, run: list[Request], *, is_paced: bool) -> int:
        if run[0].action == "delete":
            return DELETIONS_MAX
        return 1 if is_paced or self._singles_left > 0 else self._batch

    def _send(
        self, run: list[Request], pool: ThreadPoolExecutor, progress: Callable[[int], None] | None
    ) -> list[Request]:
        """Send requests of one action; answers with the next run, empty."""
        if run and run[0].action == "delete":
            self._delete(run, pool)
        elif len(run) == 1:
            self._create(run[0])
        elif run:
            self._create_many(run)
        if progress is not None:
            progress(self._tally.done)
        return []

    def _create(self, request: Request) -> None:
        self._singles_left -= 1
        headers = {"Idempotency-Key": self._key("c")}
        started = time.perf_counter()
        try:
            self._connection.request("POST", "/v1/vms", body=self._bodies.of(request), headers=headers)
        except Refused as refused:
            if int(refused.problem.get("status") or 0) in (401, 403):
                raise
            self._tally.refuse(refused.problem, request.time_s)
        else:
            self._tally.place(request.vm, request.resources, request.time_s)
        self._tally.single_ms.append((time.perf_counter() - started) * 1000)

    def _create_many(self, run: list[Request]) -> None:
        commands = [{"command": "vm.provision", **self._bodies.of(request)} for request in run]
        body = {"commands": commands, "atomic": False}
        headers = {"Idempotency-Key": self._key("b")}
        try:
            answer = self._connection.request("POST", "/v1/commands", body=body, headers=headers)
        except Refused as refused:
            if refused.code != "validation":
                raise
            # One item that the API does not take turns the whole batch away; alone, only itself.
            for request in run:
                self._create(request)
            return
        for request, result in zip(run, answer.objects("results", count=len(run), status=int), strict=True):
            if result["status"] >= 400:
                self._tally.refuse(result, request.time_s)
            else:
                self._tally.place(request.vm, request.resources, request.time_s)

    def _delete(self, run: list[Request], pool: ThreadPoolExecutor) -> None:
        """Delete them at the same time, and come back when all of it is free again."""
        known = [request for request in run if self._tally.is_running(request.vm)]
        keys = [self._key("d") for _ in known]
        if len(known) == 1:
            ended = [self._delete_one(known[0].vm, keys[0], self._connection)]
        else:
            jobs = [
                pool.submit(self._delete_elsewhere, request.vm, key) for request, key in zip(known, keys, strict=True)
            ]
            ended = [job.result() for job in jobs]
        gone = {request.vm: is_gone for request, is_gone in zip(known, ended, strict=True)}
        for request in run:
            if request.vm not in gone:
                self._tally.skip_deletion(request.time_s)
            elif gone[request.vm]:
                self._tally.delete(request.vm, request.time_s)
            else:
                self._tally.fail_deletion(request.time_s)

    def _delete_elsewhere(self, vm: str, key: str) -> bool:
        line: Connection | None = getattr(self._local, "connection", None)
        if line is None:
            line = self._local.connection = self._connection.another()
            self._lines.append(line)
        return self._delete_one(vm, key, line)

    def _delete_one(self, vm: str, key: str, connection: Connection) -> bool:
        """Whether it is gone. A controller may fail; then it is asked again, as the trace says that this VM ends."""
        until = time.monotonic() + DELETION_S_MAX
        attempt = 1
        while True:
            headers = {"Idempotency-Key": f"{key}-{attempt}", "Prefer": PREFER_WAIT}
            try:
                answer = connection.request("DELETE", f"/v1/vms/{self._stage.tenant}/{vm}", headers=headers)
            except Refused as refused:
                if refused.code == "not_found":
                    return True
                if refused.code != "operation_failed":
                    raise
                attempt += 1
                if attempt > DELETION_ATTEMPTS_MAX:
                    return False
                continue
            if answer.status == 200:
                return True
            if time.monotonic() > until:
                raise TimedOut(
                    f"the deletion of {self._stage.tenant}/{vm} is still under way after {DELETION_S_MAX:.0f} s, and "
                    "what follows it needs what it frees; see `berth get operations --state stuck`"
                )

    def _key(self, letter: str) -> str:
        self._sent += 1
        return f"{self._stage.run}-{letter}{self._sent}"
