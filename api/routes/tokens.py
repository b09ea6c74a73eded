"""Tokens: administrators' alone."""

from api.auth import ADMIN
from api.commanding import command
from api.parameters import filter_by
from api.reading import listing, single
from commands.tokens import CreateToken, RevokeToken

ONE = "/v1/tokens/{token}"

ENDPOINTS = (
    listing("token", "/v1/tokens", filters=(filter_by("role"), filter_by("tenant")), roles=ADMIN),
    command("POST", "/v1/tokens", CreateToken, "Make a token; this answer alone has its secret", answer="Token"),
    single("token", ONE, roles=ADMIN),
    command("DELETE", ONE, RevokeToken, "Revoke a token", answer="Token"),
)
