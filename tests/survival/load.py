"""Clients who want VMs made and deleted, repeat what was not answered with the same key, and keep every answer."""

import random
import threading
import time
import uuid
from itertools import pairwise
from typing import Any

import httpx
import msgspec

PATIENCE_S = 90.0
PAUSE_S = 0.05


class Acknowledged(msgspec.Struct, frozen=True):
    """A definite answer. `waited`: its position is that of a later event."""

    key: str
    method: str
    path: str
    status: int
    command: str
    position: int
    waited: bool
    at: float


class Load:
    """`with Load(…) as load`: threads that go on until the block ends, then finish what they have begun.

    `rate` is requests a second in all; `seed` decides what each asks for.
    """

    def __init__(self, url: str, token: str, *, seed: int, clients: int = 6, rate: float = 60.0) -> None:
        self.acknowledged: list[Acknowledged] = []
        self.failures: list[str] = []
        self.repeats = 0
        self._stopped_at = 0.0
        self._url, self._token = url, token
        self._seed, self._interval_s = seed, clients / rate
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(clients)]
        self._lock = threading.Lock()

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped_at = time.monotonic()
        self._stopping.set()
        for thread in self._threads:
            thread.join(PATIENCE_S + 60.0)
        assert not any(thread.is_alive() for thread in self._threads), "a request never ended"

    def longest_silence_s(self, since: float) -> float:
        """The longest time without any answer to anybody from `since` until the load ended, by the monotonic clock.

        Later come only the last who wait for an operation's end, which is no silence.
        """
        times = sorted(one.at for one in self.acknowledged if since <= one.at <= self._stopped_at)
        return max(b - a for a, b in pairwise([since, *times, self._stopped_at]))

    def _run(self, n: int) -> None:
        chance = random.Random(f"{self._seed}/{n}")
        standing: list[str] = []
        with httpx.Client(base_url=self._url, headers={"Authorization": f"Bearer {self._token}"}, timeout=30) as http:
            while not self._stopping.is_set():
                began = time.monotonic()
                try:
                    self._one(http, chance, standing, n)
                except Exception as error:
                    self.failures.append(repr(error))
                    return
                self._stopping.wait(max(0.0, self._interval_s - (time.monotonic() - began)))

    def _one(self, http: httpx.Client, chance: random.Random, standing: list[str], n: int) -> None:
        headers = {"Prefer": f"wait={chance.choice([1, 5])}"} if chance.random() < 0.2 else {}
        if standing and chance.random() < 0.3:
            name = standing.pop(chance.randrange(len(standing)))
            self._until_answered(http, "DELETE", f"/v1/vms/acme/{name}", None, headers)
            return
        name = f"vm-{self._seed}-{n}-{uuid.uuid4().hex[:10]}"
        body = {"tenant": "acme", "name": name, "group": "std", "resources": {"cpu": chance.randint(1, 8)}}
        if self._until_answered(http, "POST", "/v1/vms", body, headers).status < 300:
            standing.append(name)

    def _until_answered(
        self, http: httpx.Client, method: str, path: str, body: Any, headers: dict[str, str]
    ) -> Acknowledged:
        key = uuid.uuid4().hex
        give_up_at = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = http.request(method, path, json=body, headers={**headers, "Idempotency-Key": key})
                if answer.status_code not in (429, 503):
                    return self._keep(key, method, path, answer, waited="Prefer" in headers)
            except httpx.TransportError:
                pass
            if time.monotonic() > give_up_at:
                raise TimeoutError(f"{method} {path} was not answered within {PATIENCE_S} s")
            with self._lock:
                self.repeats += 1
            time.sleep(PAUSE_S)

    def _keep(self, key: str, method: str, path: str, answer: httpx.Response, *, waited: bool) -> Acknowledged:
        body = answer.json()
        if answer.status_code >= 400 and "command" not in body and answer.status_code != 424:
            raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text}")
        kept = Acknowledged(
            key,
            method,
            path,
            answer.status_code,
            body.get("command", ""),
            int(answer.headers.get("Berth-Position", 0)),
            waited,
            time.monotonic(),
        )
        with self._lock:
            self.acknowledged.append(kept)
        return kept
