"""Tenants."""

from api.commanding import command
from api.parameters import filter_by
from api.reading import listing, single
from commands.tenants import CreateTenant, DeleteTenant, MoveTenant, ResumeTenant, SuspendTenant, UpdateTenant

ONE = "/v1/tenants/{tenant}"

ENDPOINTS = (
    listing("tenant", "/v1/tenants", filters=(filter_by("parent"),)),
    command("POST", "/v1/tenants", CreateTenant, "Create a tenant", answer="Tenant"),
    single("tenant", ONE),
    command("PATCH", ONE, UpdateTenant, "Change a tenant's words", answer="Tenant"),
    command("DELETE", ONE, DeleteTenant, "Delete a tenant that has nothing", answer="Tenant"),
    command("POST", f"{ONE}/move", MoveTenant, "Give a tenant another parent", answer="Tenant"),
    command("POST", f"{ONE}/suspend", SuspendTenant, "Allow a tenant no new workload", answer="Tenant"),
    command("POST", f"{ONE}/resume", ResumeTenant, "Allow a tenant new workload again", answer="Tenant"),
)
