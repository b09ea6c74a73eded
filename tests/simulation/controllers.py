"""The simulated controllers at work in the simulation, and the machines that stand through them."""

import asyncio
from collections import OrderedDict
from typing import Any

from tests.simulation.faults import Faults
from workers.controllers.simulator import Simulator, Work, _chance


class Machines:
    """What really stands, by the VM's uid; `gone` is what a controller must never make again, and outlives it.
    `called_off` are the operations whose work a person has stopped at the controllers."""

    def __init__(self) -> None:
        self.standing: set[str] = set()
        self.gone: OrderedDict[str, None] = OrderedDict()
        self.called_off: set[str] = set()
        self.broken: list[str] = []
        self.made = 0
        self._freed: set[str] = set()

    def freed(self, uid: str) -> str | None:
        """Its claims were given back."""
        self._freed.add(uid)
        return f"claims of {uid} are given back, and it stands" if uid in self.standing else None

    def make(self, uid: str) -> None:
        if uid in self._freed:
            self.broken.append(f"{uid} is made after its claims were given back")
        self.standing.add(uid)
        self.made += 1

    def remove(self, uid: str) -> None:
        self.standing.discard(uid)

    def remove_by_hand(self, uid: str) -> None:
        """A person looked, and made sure."""
        self.gone[uid] = None
        self.remove(uid)


class Controller(Simulator):
    """The real simulator of controllers, whose work has an effect here."""

    def __init__(self, client: Any, machines: Machines, faults: Faults, *, timeout_s: float, **more: Any) -> None:
        super().__init__(client, "vm", **more)
        self.gone = machines.gone
        self._machines = machines
        self._faults = faults
        self._timeout_s = timeout_s

    async def _take_time(self, work: Work) -> None:
        action, uid = work.step.partition(".")[2], work.input["uid"]
        if self._faults.happens("work hangs"):
            await asyncio.sleep(self._timeout_s * 1.5)
        await super()._take_time(work)
        fails = self._fails(work)
        if action == "delete" and not fails:
            self._machines.remove(uid)
        elif action == "create" and uid not in self.gone and not (fails and _chance(work) * 2 < self._fail_rate):
            self._machines.make(uid)  # what fails may stand all the same, until it is cleaned up

    def _fails(self, work: Work) -> bool:
        """Deletions fail too, as the real one's never do."""
        is_hard = work.step == "vm.delete" and _chance(work) < self._fail_rate
        return work.operation in self._machines.called_off or is_hard or super()._fails(work)
