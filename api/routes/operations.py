"""Operations: what controllers carry out, and report on."""

from api.auth import EVERYONE
from api.commanding import command
from api.parameters import filter_by
from api.reading import listing, single
from commands.operations import CancelOperation, ReportOperation, RetryOperation, SettleOperation

ONE = "/v1/operations/{operation}"

ENDPOINTS = (
    listing(
        "operation",
        "/v1/operations",
        filters=(filter_by("target", "Only on this stream"), filter_by("kind")),
        roles=EVERYONE,
    ),
    single("operation", ONE, roles=EVERYONE),
    command("POST", f"{ONE}/report", ReportOperation, "Report on an attempt of a step", answer="Operation"),
    command("POST", f"{ONE}/cancel", CancelOperation, "Cancel, and undo what was begun", answer="Operation"),
    command("POST", f"{ONE}/retry", RetryOperation, "Try a stuck step once more", answer="Operation"),
    command("POST", f"{ONE}/settle", SettleOperation, "Say whether its work is done", answer="Operation"),
)
