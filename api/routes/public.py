"""Routes that need no token: health, metrics, the API description and its page, pages about problems."""

from typing import Any

from api import pages
from api.endpoint import Call, Endpoint, Handle
from api.metrics import CONTENT_TYPE
from api.problems import NotReady
from api.reply import HTML, Answerable, Reply, json_reply
from domain.errors import NotFound

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
    """Is everything as it should be? A component may be in trouble for as long as a restart takes."""
    return _answered(await _components(call))


async def _component_ready(call: Call) -> Answerable:
    """One component alone: a load balancer asks for `api`, which decides and reads while NATS' parts stand still."""
    asked = call.path["component"]
    found = await _components(call)
    if all(one["name"] != asked for one in found):
        raise NotFound("component", asked[:64].replace("\0", ""))
    return _answered([one for one in found if one["name"] == asked])


def _answered(components: list[dict[str, Any]]) -> Reply:
    if not all(one["ready"] for one in components):
        raise NotReady(components)
    return json_reply({"status": "ready", "components": components})


async def _components(call: Call) -> list[dict[str, Any]]:
    tail = call.context.tail
    return [
        {"name": one.name, "state": one.state, "reason": one.reason, "ready": one.is_ready}
        if one.name != "api" or tail.is_running
        else {"name": one.name, "state": "stopped", "reason": tail.ended_by, "ready": False}
        for one in await call.context.component_statuses()
    ]


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


def _open(
    path: str, name: str, summary: str, handle: Handle, answer_type: str, *refusals: int, answer: str | None = None
) -> Endpoint:
    return Endpoint(
        method="GET",
        path=path,
        name=name,
        summary=summary,
        handle=handle,
        roles=None,
        answer=answer,
        answer_type=answer_type,
        refusals=refusals,
    )


ENDPOINTS = (
    _open("/healthz", "is_alive", "Is the process alive?", _alive, "application/json"),
    _open("/readyz", "is_ready", "Is every component ready?", _ready, "application/json", 503, answer="Readiness"),
    _open(
        "/readyz/{component}",
        "is_component_ready",
        "Is one component ready?",
        _component_ready,
        "application/json",
        404,
        503,
        answer="Readiness",
    ),
    _open("/metrics", "get_metrics", "For Prometheus", _metrics, "text/plain", 503),
    _open("/openapi.json", "get_description", "The description of the API", _description, "application/json"),
    _open("/docs", "get_docs", "The description of the API, as a page", _docs, "text/html"),
    _open("/docs.js", "get_docs_script", "The script of /docs", _docs_script, "text/javascript"),
    _open("/problems/{code}", "get_problem", "What a problem means, and what to do", _problem, "text/html", 404),
)
