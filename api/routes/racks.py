"""Racks."""

from api.commanding import command
from api.parameters import filter_by
from api.reading import listing, single
from commands.racks import CreateRack, DeleteRack, UpdateRack

ONE = "/v1/racks/{rack}"

ENDPOINTS = (
    listing("rack", "/v1/racks", filters=(filter_by("region"), filter_by("dc"), filter_by("room"))),
    command("POST", "/v1/racks", CreateRack, "Create a rack", answer="Rack"),
    single("rack", ONE),
    command("PATCH", ONE, UpdateRack, "Change a rack", answer="Rack"),
    command("DELETE", ONE, DeleteRack, "Delete a rack without hosts", answer="Rack"),
)
