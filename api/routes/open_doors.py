"""What needs no token: is it alive, is it ready, its metrics, its description, what each problem means."""

from api import pages
from api.endpoint import Call, Endpoint
from api.metrics import CONTENT_TYPE
from api.reply import HTML, Answerable, Reply, json_reply
from domain.errors import NotFound, Unavailable

PAGE_HEADERS = (
    (b"cache-control", b"public, max-age=300"),
    # Nothing from elsewhere, ever: the pages work in a closed network.
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'unsafe-inline'; script-src 'self'; connect-src 'self'; img-src data:",
    ),
)


async def _alive(call: Call) -> Answerable:
    return json_reply({"status": "ok"})


async def _ready(call: Call) -> Answerable:
    """Does the gateway decide, and do reads show nearly what stands?"""
    if not call.context.tail.is_running or not await call.context.is_ready():
        raise Unavailable
    return json_reply({"status": "ready"})


async def _metrics(call: Call) -> Answerable:
    return Reply(200, await call.scope["app"].state.metrics.get(), CONTENT_TYPE)


async def _description(call: Call) -> Answerable:
    return Reply(200, call.scope["app"].state.openapi)


async def _docs(call: Call) -> Answerable:
    return Reply(200, pages.DOCS, HTML, PAGE_HEADERS)


async def _docs_script(call: Call) -> Answerable:
    return Reply(200, pages.DOCS_SCRIPT, b"text/javascript; charset=utf-8", PAGE_HEADERS)


async def _problem(call: Call) -> Answerable:
    page = pages.problem(call.path["code"])
    if page is None:
        raise NotFound("problem", call.path["code"][:64].replace("\0", ""))
    return Reply(200, page, HTML, PAGE_HEADERS)


def _open(path: str, name: str, summary: str, handle: object, answer_type: str, *refusals: int) -> Endpoint:
    return Endpoint(
        method="GET",
        path=path,
        name=name,
        summary=summary,
        handle=handle,  # type: ignore[arg-type]
        roles=None,
        answer_type=answer_type,
        refusals=refusals,
    )


ENDPOINTS = (
    _open("/healthz", "is_alive", "Is the process alive?", _alive, "application/json"),
    _open("/readyz", "is_ready", "Can it serve?", _ready, "application/json", 503),
    _open("/metrics", "get_metrics", "For Prometheus", _metrics, "text/plain", 503),
    _open("/openapi.json", "get_description", "This description", _description, "application/json"),
    _open("/docs", "get_docs", "This description, to read", _docs, "text/html"),
    _open("/docs.js", "get_docs_script", "The script of /docs", _docs_script, "text/javascript"),
    _open("/problems/{code}", "get_problem", "What a problem means, and what to do", _problem, "text/html", 404),
)
