"""Tokens, as they are shown: to administrators alone, and never with their hash. The table has revoked ones too, which
no list shows: who asks with one must be refused."""

from sqlalchemy import BigInteger

from domain.token import KIND, ROLES, Token
from projections.field_types import MAYBE, MAYBE_TIME, Name, enum
from projections.fields import common, own, shown_time, stored
from projections.view import ADMINS, View

VIEW: View[Token] = View(
    kind=KIND,
    fields=(
        *common(KIND, owner="tokens.tenant"),
        own("role", enum(*ROLES), column=Name, filters=True, sorts=True),
        own("tenant", MAYBE, column=Name, filters=True, sorts=True),
        own(
            "expires_at",
            MAYBE_TIME,
            lambda token: shown_time(token.expires_at) if token.expires_at is not None else None,
            stored="expires_at",
            column=BigInteger(),
            sorts=True,
        ),
    ),
    stored=(stored("hash", Name, is_indexed=True),),
    readers=ADMINS,
    columns=("name", "display_name", "role", "tenant", "state", "created_at", "expires_at"),
    wide=("description", "version"),
    yields=("created_at", "display_name", "expires_at", "tenant"),
)
