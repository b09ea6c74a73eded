"""What each problem means and what to do about it, for people: pages and the API's description are made from it."""

# code → (status, what it means, what to do)
PROBLEMS: dict[str, tuple[int, str, str]] = {
    "malformed": (
        400,
        "The body is not one JSON object in UTF-8 with each member named once; or the request is not HTTP, or repeats a"
        " header that may come only once.",
        "Fix the request; <code>errors</code> says where reading stopped, or which header was repeated.",
    ),
    "validation": (
        422,
        "The request is readable but not valid: an unknown field, a wrong type, a value out of range.",
        "Each entry of <code>errors</code> names a field (a JSON Pointer, <code>query:x</code> or "
        "<code>header:x</code>) and what is wrong with it.",
    ),
    "unauthenticated": (
        401,
        "The request has no token, or one that is unknown, revoked or expired.",
        "Send <code>Authorization: Bearer &lt;token&gt;</code>; an administrator makes tokens.",
    ),
    "forbidden": (
        403,
        "Your token's role does not include this <code>permission</code>.",
        "Ask an administrator for a token that does, or let somebody who has it do this.",
    ),
    "not_found": (
        404,
        "What the path or the body names does not exist, or your token may not see it.",
        "See <code>did_you_mean</code>, or list the resources that exist.",
    ),
    "method_not_allowed": (
        405,
        "The path exists, but not with this method.",
        "See the header <code>Allow</code>.",
    ),
    "too_large": (
        413,
        "The body is larger than <code>limit</code> bytes.",
        "Send less at once; several smaller batches do the same.",
    ),
    "too_slow": (
        408,
        "The body arrived at less than <code>bytes_per_s_min</code>, or not at all.",
        "Nothing was done. Send it again, in smaller parts if the connection is slow.",
    ),
    "unsupported_media_type": (
        415,
        "The body has a <code>Content-Type</code> that this route does not accept.",
        "Send JSON and <code>Content-Type: application/json</code> (PATCH also takes "
        "<code>application/merge-patch+json</code>).",
    ),
    "already_exists": (
        409,
        "The name is taken.",
        "Choose another name, or change the resource that has it.",
    ),
    "in_use": (
        409,
        "Other resources still use it: see <code>used_by</code>.",
        "Move or delete those first.",
    ),
    "conflict": (
        409,
        "The request conflicts with the current state; <code>detail</code> says how.",
        "Read the resource again and change the request.",
    ),
    "invalid_state": (
        409,
        "It is in <code>state</code>, and this is possible in <code>allowed</code> only; <code>operation</code> is"
        " under way there, or stuck.",
        "Wait for that operation, take one of its <code>ways_out</code>, or bring the resource to such a state.",
    ),
    "protected": (
        409,
        "The command would delete or stop a protected resource: see <code>name</code>.",
        "If that is intended, set its <code>protected</code> to false first.",
    ),
    "quota_exceeded": (
        409,
        "A quota along the chain of tenants would be exceeded. <code>shortfalls</code> says by how much, and whose.",
        "Ask for less, free something, or have the quota raised. An entry without a tenant is one above yours.",
    ),
    "no_quota": (
        409,
        "The tenant has no quota in this group, so it may not use it.",
        "Use one of <code>groups</code>, or have a quota granted.",
    ),
    "no_capacity": (
        409,
        "No host of the group can take it. <code>reasons</code> counts each host once, by the first that excluded it.",
        "Try <code>alternatives</code>, ask for at most <code>largest_fit</code>, relax conditions, or add hosts.",
    ),
    "below_use": (
        409,
        "Running workload would no longer fit: see <code>would_break</code>.",
        "Free something first, or send <code>force</code> where the command has it; then nothing new lands there.",
    ),
    "suspended": (
        409,
        "The tenant, or one above it, is suspended: no new or larger workload.",
        "Have it resumed.",
    ),
    "aborted": (
        409,
        "Another command of the same atomic batch failed: the one at <code>index</code>.",
        "Fix that one and send the batch again under a new key.",
    ),
    "operation_failed": (
        424,
        "The command was accepted, but its operation failed; what it had reserved was released.",
        "See <code>step</code> and <code>reason</code>; then send the request again under a new key.",
    ),
    "version_mismatch": (
        412,
        "The resource has changed since you read it; it is at <code>version</code> now.",
        "Read it again and repeat the change on the current version.",
    ),
    "idempotency_mismatch": (
        422,
        "This Idempotency-Key belongs to another request.",
        "Use a new key for a new request.",
    ),
    "rate_limited": (
        429,
        "Too many requests.",
        "Wait as long as <code>Retry-After</code> says.",
    ),
    "unavailable": (
        503,
        "No answer in time. A command that has an id may have been executed all the same.",
        "After <code>Retry-After</code>, ask <code>GET /v1/commands/{id}</code>, or send the same request "
        "with the same key.",
    ),
    "internal": (
        500,
        "Internal error; this command changed nothing.",
        "Report the command's id to whoever runs Berth.",
    ),
}
