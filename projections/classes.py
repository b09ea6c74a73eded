"""Which resource classes there are: the columns of a table whose rows each name a few of them."""

from projections.sessions import Statement
from projections.sums import BY_DC

# Claims are counted in quotas while they are held; what failed holds none, and still shows what it was to have.
_ALL = f"""
    SELECT jsonb_object_keys(limits) AS name FROM quotas
    UNION SELECT jsonb_object_keys(used) FROM quotas
    UNION SELECT jsonb_object_keys(overcommit) FROM groups
    UNION SELECT json_object_keys(document -> 'capacity') FROM sums WHERE level = '{BY_DC}'
    UNION SELECT json_object_keys(document -> 'used') FROM sums WHERE level = '{BY_DC}'
    UNION SELECT json_object_keys(document -> 'resources') FROM vms WHERE state = 'failed'
"""
# What a scope shows: its tenants' quotas and VMs, and in their groups the limits above them, which bound them.
_IN_SCOPE = """
    WITH RECURSIVE below AS (
        SELECT key FROM tenants WHERE key = $1
        UNION ALL SELECT tenants.key FROM tenants JOIN below ON tenants.parent = below.key
    ), above AS (
        SELECT parent FROM tenants WHERE key = $1
        UNION ALL SELECT tenants.parent FROM tenants JOIN above ON tenants.key = above.parent
    ), own AS (
        SELECT "group", limits, used FROM quotas WHERE tenant IN (SELECT key FROM below)
    )
    SELECT jsonb_object_keys(limits) AS name FROM own
    UNION SELECT jsonb_object_keys(used) FROM own
    UNION SELECT jsonb_object_keys(limits) FROM quotas
        WHERE tenant IN (SELECT parent FROM above) AND "group" IN (SELECT "group" FROM own)
    UNION SELECT jsonb_object_keys(overcommit) FROM groups WHERE key IN (SELECT "group" FROM own)
    UNION SELECT json_object_keys(document -> 'resources') FROM vms
        WHERE state = 'failed' AND tenant IN (SELECT key FROM below)
"""


def _statement(classes: str, *parameters: str) -> Statement:
    found = f"SELECT position, (SELECT json_agg(name) FROM ({classes}) AS found) FROM progress WHERE is_complete"
    return Statement(found.encode(), parameters, {})


ALL, IN_SCOPE = _statement(_ALL), _statement(_IN_SCOPE, "scope")
