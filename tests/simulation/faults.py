"""What may go wrong, and how often: drawn by the seed for each run, with some kinds switched off entirely."""

import random

# Chances by occasion: a statement, a message, a piece of work, a request.
OCCASIONS = {
    "statement lost": 0.002,  # the connection is cut before it arrives
    "answer lost": 0.002,  # it was executed, and nobody is told
    "cut in commit": 0.02,  # the client is told so at once, the commit lands later or not at all
    "slow commit": 0.02,
    "half open": 0.001,  # the client notices after seconds; the server does not, and holds the locks
    "connect refused": 0.01,
    "read fails": 0.005,
    "message lost": 0.005,
    "message late": 0.02,  # so that others overtake it
    "delivered twice": 0.02,
    "chain cut": 0.005,  # a connection to NATS breaks: some messages are lost, later ones sent when it is made again
    "projection lost": 0.01,  # the connection is cut before the commit
    "projection unanswered": 0.01,  # and after it
    "work hangs": 0.05,  # past its deadline
    "work fails": 0.15,
    "request repeated": 0.1,  # the same key again, at once or much later
    "client gives up": 0.05,
    "stale report": 0.1,  # of another's step, of an attempt that is over or never was
    "unstorable": 0.01,  # PostgreSQL refuses the rows
}
# Events in a second of the virtual clock.
RATES = {
    "kill": 0.2,
    "pause": 0.15,
    "backend ended": 0.08,
    "postgres restarts": 0.03,
    "nats restarts": 0.04,
    "nats wiped": 0.015,
    "work wiped": 0.015,
    "clock jumps": 0.06,
    "read model wiped": 0.02,
}
SWITCHED_OFF = 0.4


class Faults:
    """The kinds of one run with their weights, and how often each came."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.weights: dict[str, float] = {}
        for kinds in (OCCASIONS, RATES):
            for kind, usual in kinds.items():
                weight = usual * 10 ** chance.uniform(-0.7, 0.5)
                self.weights[kind] = 0.0 if chance.random() < SWITCHED_OFF else weight
        self.counts: dict[str, int] = dict.fromkeys(self.weights, 0)
        self.is_over = False

    def happens(self, kind: str) -> bool:
        weight = self.weights[kind]
        if not weight or self.is_over or self._chance.random() >= weight:
            return False
        self.counts[kind] += 1
        return True

    def next_of(self, kinds: dict[str, float]) -> tuple[float, str] | None:
        """Seconds until the next fault of these kinds, and which."""
        on = {kind: self.weights[kind] for kind in kinds if self.weights[kind]}
        total = sum(on.values())
        if not total or self.is_over:
            return None
        (kind,) = self._chance.choices(list(on), list(on.values()))
        return self._chance.expovariate(total), kind

    def any_of(self, *kinds: str) -> bool:
        """Whether one of these may happen in this run."""
        return any(self.weights[kind] for kind in kinds)
