"""VMs."""

from api.commanding import command
from api.parameters import BOOLEAN, Parameter, filter_by, flag
from api.reading import PLACE_FILTERS, SUBTREE, listing, single
from commands.vms import DeleteVm, ProvisionVm, ResizeVm, StartVm, StopVm, UpdateVm

ONE = "/v1/vms/{tenant}/{vm}"
RULES_BROKEN = Parameter(
    "rules_broken", "Only those of which a rule does not hold where they stand (true), or not (false)", flag, BOOLEAN
)
FILTERS = (
    filter_by("tenant"),
    SUBTREE,
    filter_by("host"),
    filter_by("cluster"),
    filter_by("pool"),
    filter_by("set"),
    RULES_BROKEN,
    filter_by("group"),
    *PLACE_FILTERS,
)

ENDPOINTS = (
    command("POST", "/v1/vms", ProvisionVm, "Provision a VM", answer="Vm"),
    listing("vm", "/v1/vms", filters=FILTERS),
    single("vm", ONE),
    command("PATCH", ONE, UpdateVm, "Change a VM's words and protection", answer="Vm"),
    command("DELETE", ONE, DeleteVm, "Delete a VM", answer="Vm"),
    command("POST", f"{ONE}/resize", ResizeVm, "Resize a VM", answer="Vm"),
    command("POST", f"{ONE}/start", StartVm, "Start a stopped VM", answer="Vm"),
    command("POST", f"{ONE}/stop", StopVm, "Stop a VM; it keeps its claims", answer="Vm"),
)
