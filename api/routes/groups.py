"""Groups."""

from api.commanding import command
from api.parameters import filter_by
from api.reading import listing, single
from commands.groups import CreateGroup, DeleteGroup, UpdateGroup

ONE = "/v1/groups/{group}"

ENDPOINTS = (
    listing("group", "/v1/groups", filters=(filter_by("region"),)),
    command("POST", "/v1/groups", CreateGroup, "Create a group", answer="Group"),
    single("group", ONE),
    command("PATCH", ONE, UpdateGroup, "Change a group", answer="Group"),
    command("DELETE", ONE, DeleteGroup, "Delete a group without hosts, and its quotas", answer="Group"),
)
