"""Hosts."""

from api.commanding import command
from api.parameters import filter_by
from api.reading import PLACE_FILTERS, listing, single
from commands.hosts import CordonHost, DeleteHost, MoveHost, RegisterHost, UncordonHost, UpdateHost

ONE = "/v1/hosts/{host}"

ENDPOINTS = (
    listing("host", "/v1/hosts", filters=(filter_by("group"), *PLACE_FILTERS)),
    command("POST", "/v1/hosts", RegisterHost, "Register a host", answer="Host"),
    single("host", ONE),
    command("PATCH", ONE, UpdateHost, "Change a host", answer="Host"),
    command("DELETE", ONE, DeleteHost, "Delete a host without VMs", answer="Host"),
    command("POST", f"{ONE}/move", MoveHost, "Move a host to another group", answer="Host"),
    command("POST", f"{ONE}/cordon", CordonHost, "Take no new workload", answer="Host"),
    command("POST", f"{ONE}/uncordon", UncordonHost, "Take new workload again", answer="Host"),
)
