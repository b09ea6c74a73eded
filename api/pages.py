"""Pages for people, without anything from elsewhere: the description of the API, and what each problem means."""

from html import escape

# code → (status, what it means, what to do)
PROBLEMS: dict[str, tuple[int, str, str]] = {
    "malformed": (
        400,
        "The body is not one JSON object in UTF-8 whose members are each named once; or what came is not HTTP, or has"
        " a header twice that has one value.",
        "Mend the request; <code>errors</code> says where reading stopped, or which header came twice.",
    ),
    "validation": (
        422,
        "The request is readable but can't be meant so: an unknown field, a wrong type, a value out of range.",
        "Each entry of <code>errors</code> names a field (a JSON Pointer, <code>query:x</code> or "
        "<code>header:x</code>) and what is wrong with it.",
    ),
    "unauthenticated": (
        401,
        "No token came, or one that is unknown, revoked or expired.",
        "Send <code>Authorization: Bearer &lt;token&gt;</code>; an administrator makes tokens.",
    ),
    "forbidden": (
        403,
        "Your token's role does not include this <code>permission</code>.",
        "Ask an administrator for a token that does, or let somebody who has it do this.",
    ),
    "not_found": (
        404,
        "What the path or the body names is not there, or not yours to see.",
        "Look at <code>did_you_mean</code>, or list what there is.",
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
        "The body came at less than <code>bytes_per_s_min</code>, or not at all, and was waited for no longer.",
        "Nothing was done. Send it again, in smaller parts if the line is slow.",
    ),
    "unsupported_media_type": (
        415,
        "The body is announced as something that is not read here.",
        "Send JSON and <code>Content-Type: application/json</code> (PATCH also takes "
        "<code>application/merge-patch+json</code>).",
    ),
    "already_exists": (
        409,
        "The name is taken.",
        "Choose another name, or change what is there.",
    ),
    "in_use": (
        409,
        "Something still uses it: see <code>used_by</code>.",
        "Move or delete those first.",
    ),
    "conflict": (
        409,
        "The request contradicts what stands; <code>detail</code> says how.",
        "Read the resource again and decide anew.",
    ),
    "invalid_state": (
        409,
        "It is in <code>state</code>, and this is possible in <code>allowed</code> only; <code>operation</code> is"
        " under way there, or stuck.",
        "Wait for that operation, take one of its <code>ways_out</code>, or bring the resource to such a state.",
    ),
    "protected": (
        409,
        "What the verb would destroy is protected: see <code>name</code>.",
        "Set its <code>protected</code> to false first, if it is meant so.",
    ),
    "quota_exceeded": (
        409,
        "A quota along the chain of tenants would be exceeded. <code>shortfalls</code> says by how much, and whose.",
        "Ask for less, free something, or have the quota raised. An entry without a tenant is one above yours.",
    ),
    "no_quota": (
        409,
        "The tenant has no quota in this group, so no access to it.",
        "Use one of <code>groups</code>, or have a quota granted.",
    ),
    "no_capacity": (
        409,
        "No host of the group takes it. <code>reasons</code> counts each host once, under what dropped it first.",
        "Try <code>alternatives</code>, ask for at most <code>largest_fit</code>, relax conditions, or add hosts.",
    ),
    "below_use": (
        409,
        "What runs would no longer fit: see <code>would_break</code>.",
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
        "Mend that one and send the batch again under a new key.",
    ),
    "operation_failed": (
        424,
        "The command was accepted, but its operation came to nothing; what it held was given back.",
        "See <code>step</code> and <code>reason</code>; then ask again under a new key.",
    ),
    "version_mismatch": (
        412,
        "It was changed since you read it; it is at <code>version</code> now.",
        "Read it again and repeat the change on what is there.",
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
        "No answer in time. A command with an id may still have been decided.",
        "After <code>Retry-After</code>, ask <code>GET /v1/commands/{id}</code>, or send the same request "
        "with the same key.",
    ),
    "internal": (
        500,
        "A fault of ours; nothing was done by this command.",
        "Report the command's id.",
    ),
}

STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1a1a2e}"
    "code,pre{font:14px/1.4 ui-monospace,monospace;background:#f2f4f8;border-radius:4px;padding:0 .25rem}"
    "pre{padding:.75rem;overflow:auto}h1,h2{line-height:1.2}summary{cursor:pointer;padding:.35rem 0}"
    "details{border-top:1px solid #dde}.m{display:inline-block;min-width:4.5rem;font-weight:600}"
    "table{border-collapse:collapse}td,th{text-align:left;padding:.2rem .75rem .2rem 0;vertical-align:top}"
    "@media(prefers-color-scheme:dark){body{background:#14141f;color:#e8e8f0}code,pre{background:#232336}"
    "details{border-color:#334}a{color:#9bf}}"
)


def _page(title: str, body: str, script: str = "") -> bytes:
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{STYLE}</style></head>'
        f"<body>{body}{script}</body></html>"
    ).encode()


def problem(code: str) -> bytes | None:
    """The page of a problem's code; None if there is no such code."""
    found = PROBLEMS.get(code)
    if found is None:
        return None
    status, meaning, remedy = found
    title = f"{escape(code)} ({status})"
    body = (
        f'<h1>{title}</h1><p>{meaning}</p><h2>What to do</h2><p>{remedy}</p><p><a href="/docs">All of the API</a></p>'
    )
    return _page(title, body)


DOCS = _page(
    "Berth API",
    '<h1 id="title">Berth API</h1><p id="about"></p><p><a href="/openapi.json">openapi.json</a></p>'
    '<p><input id="find" placeholder="Filter paths" aria-label="Filter paths"></p><main id="paths">'
    "<noscript>This page needs JavaScript; /openapi.json has it all.</noscript></main>"
    '<h2>Schemas</h2><section id="schemas"></section>',
    '<script src="/docs.js"></script>',
)

DOCS_SCRIPT = rb"""'use strict';
const make = (tag, text, ...inside) => {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  node.append(...inside);
  return node;
};
const json = value => make('pre', JSON.stringify(value, null, 2));
const name = schema => (schema.$ref || '').split('/').pop();
const link = schema => {
  if (!schema || !schema.$ref) return json(schema || {});
  const anchor = make('a', name(schema));
  anchor.href = '#schema-' + name(schema);
  return make('p', '', anchor);
};
const table = parameters => {
  const rows = parameters.map(p => make('tr', '', make('td', '', make('code', p.name)), make('td', p.in),
    make('td', (p.required ? 'needed. ' : '') + (p.description || ''))));
  return make('table', '', ...rows);
};
const operation = (method, path, spec, components) => {
  const head = make('summary', '', make('span', method.toUpperCase()), make('code', path),
    make('span', ' ' + spec.summary));
  head.firstChild.className = 'm';
  const box = make('details', '', head);
  const parameters = (spec.parameters || []).map(p => p.$ref ? components.parameters[name(p)] : p);
  if (parameters.length) box.append(make('h4', 'Parameters'), table(parameters));
  if (spec.requestBody) {
    const content = Object.entries(spec.requestBody.content);
    box.append(make('h4', 'Body (' + content.map(([type]) => type).join(', ') + ')'), link(content[0][1].schema));
  }
  box.append(make('h4', 'Answers'));
  for (const [status, answer] of Object.entries(spec.responses)) {
    const found = answer.$ref ? components.responses[name(answer)] : answer;
    const content = Object.entries(found.content || {});
    box.append(make('div', status + ' ' + found.description), ...content.filter(([, c]) => c.schema && c.schema.$ref)
      .map(([, c]) => link(c.schema)));
  }
  return box;
};
fetch('/openapi.json').then(answer => answer.json()).then(api => {
  document.getElementById('title').textContent = api.info.title + ' ' + api.info.version;
  document.getElementById('about').textContent = api.info.description;
  const main = document.getElementById('paths');
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, spec] of Object.entries(methods)) main.append(operation(method, path, spec, api.components));
  const schemas = document.getElementById('schemas');
  for (const [title, schema] of Object.entries(api.components.schemas)) {
    const box = make('details', '', make('summary', title), json(schema));
    box.id = 'schema-' + title;
    schemas.append(box);
  }
  document.getElementById('find').addEventListener('input', event => {
    for (const box of main.children)
      box.hidden = !box.firstChild.textContent.toLowerCase().includes(event.target.value.toLowerCase());
  });
  addEventListener('hashchange', () => {
    const box = document.getElementById(location.hash.slice(1));
    if (box) box.open = true;
  });
});
"""
