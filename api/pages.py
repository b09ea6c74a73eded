"""Pages for people, made of the files in `api/web`: the description of the API, and what each problem means."""

from importlib.resources import files
from string import Template

from api.problem_texts import PROBLEMS

_WEB = files("api") / "web"
_PAGE = Template((_WEB / "page.html").read_text("utf-8"))
_PROBLEM = Template((_WEB / "problem.html").read_text("utf-8"))
_STYLE = (_WEB / "style.css").read_text("utf-8")


def _page(title: str, body: str) -> bytes:
    return _PAGE.substitute(title=title, style=_STYLE, body=body).encode()


def problem(code: str) -> bytes | None:
    """The page of a problem's code; None if there is no such code."""
    found = PROBLEMS.get(code)
    if found is None:
        return None
    status, meaning, remedy = found
    return _page(f"{code} ({status})", _PROBLEM.substitute(code=code, status=status, meaning=meaning, remedy=remedy))


DOCS = _page("Berth API", (_WEB / "docs.html").read_text("utf-8"))
DOCS_SCRIPT = (_WEB / "docs.js").read_bytes()
