"""Quotas: everywhere, of one group, of one tenant in one group."""

from api.commanding import command
from api.parameters import BOOLEAN, Parameter, filter_by, flag
from api.reading import SUBTREE, listing, single
from commands.quotas import DeleteQuota, SetQuota

ONE = "/v1/groups/{group}/quotas/{tenant}"
OVER = Parameter("over", "Only those that are used above a limit (true), or not (false)", flag, BOOLEAN)

ENDPOINTS = (
    listing("quota", "/v1/quotas", filters=(filter_by("tenant"), SUBTREE, filter_by("group"), OVER)),
    listing("quota", "/v1/groups/{group}/quotas", filters=(filter_by("tenant"), SUBTREE, OVER), within="group"),
    single("quota", ONE),
    command("PUT", ONE, SetQuota, "Set a tenant's limits in a group", answer="Quota"),
    command("DELETE", ONE, DeleteQuota, "Withdraw a quota under which nothing runs", answer="Quota"),
)
