"""A kind that this command line has never heard of has every verb, every field as a flag, and a place in files."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cli import discovery, flags
from cli.errors import Failed
from cli.kinds import Kinds
from cli.main import main
from cli.session import Session
from cli.site import document as files
from cli.site import plan
from tests.cli.conftest import NOBODY
from tests.cli.kinds_document import document

NAME = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"}


def body(required: list[str], **properties: Any) -> dict[str, Any]:
    lens = {"type": "object", "properties": {"focus": {"type": "number"}, "coat": {"enum": ["mat", "gloss"]}}}
    return {"type": "object", "properties": properties, "required": required, "$defs": {"Lens": lens}}


LENS = {"anyOf": [{"$ref": "#/$defs/Lens"}, {"type": "null"}]}
WATTS = {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}}
PORTS = {"type": "array", "items": {"type": "integer"}}
CREATE = body(
    ["name", "room", "watts"], room=NAME, name=NAME, rack=NAME, watts=WATTS, lens=LENS, ports=PORTS, model=NAME
)
CHANGE = body([], watts=WATTS, lens=LENS, ports=PORTS)


def command(verb: str, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    words = {"name": f"camera.{verb}", "summary": f"{verb.capitalize()} a camera", "description": ""}
    return {**words, "verb": verb, "method": method, "path": path, "body": body, "starts_operation": False}


ONE = "/v1/cameras/{room}/{camera}"
CAMERA = {
    "name": "camera",
    "plural": "cameras",
    "short": ["cam"],
    "named_by": ["room", "camera"],
    "path": ONE,
    "list": "/v1/cameras",
    "states": ["on", "off"],
    "failed_states": [],
    "refs": {"rack": "rack", "above": "camera"},
    "fields": [{"name": name, "schema": {}} for name in ("name", "room", "rack", "watts", "lens", "ports", "state")],
    "filters": [{"name": "dusty", "description": "x", "schema": {"type": "boolean"}, "repeatable": False}],
    "sorts": ["name"],
    "amount_sorts": [],
    "columns": ["name", "rack", "state"],
    "wide": [],
    "amounts": ["watts"],
    "yields": [],
    "commands": [
        command("create", "POST", "/v1/cameras", CREATE),
        command("set", "PATCH", ONE, CHANGE),
        command("rehang", "POST", f"{ONE}/rehang", body(["rack"], rack=NAME, force={"type": "boolean"})),
        command("wipe", "POST", f"{ONE}/lenses/{{layer}}/wipe"),
        command("delete", "DELETE", ONE),
    ],
}


def with_camera() -> Any:
    whole = document()
    whole["kinds"].append(CAMERA)
    return whole


@pytest.fixture
def sent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, Any]]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("BERTH_URL", NOBODY)
    discovery._keep(NOBODY, '"1"', with_camera())
    found: list[tuple[str, str, Any]] = []

    def command(session: Session, method: str, path: str, body: Any = None, **more: Any) -> Any:
        found.append((method, path, body))
        raise Failed("sent")

    monkeypatch.setattr(Session, "command", command)
    return found


@pytest.mark.parametrize(
    ("words", "request_sent"),
    [
        (
            "create cam hall/c1 --watts.idle 4 --watt full=9 --ports 1,2 --port 3 --lens.coat mat --focus 1.5",
            (
                "POST",
                "/v1/cameras",
                {
                    "room": "hall",
                    "name": "c1",
                    "watts": {"idle": 4, "full": 9},
                    "ports": [1, 2, 3],
                    "lens": {"coat": "mat", "focus": 1.5},
                },
            ),
        ),
        ("set camera hall/c1 --no-lens", ("PATCH", "/v1/cameras/hall/c1", {"lens": None})),
        ("rehang cameras hall/c1 --rack r1", ("POST", "/v1/cameras/hall/c1/rehang", {"rack": "r1"})),
        ("rehang hall/c1 --rack r1 --force", ("POST", "/v1/cameras/hall/c1/rehang", {"rack": "r1", "force": True})),
        ("wipe camera hall/c1 --layer outer", ("POST", "/v1/cameras/hall/c1/lenses/outer/wipe", {})),
        ("delete camera hall/c1", ("DELETE", "/v1/cameras/hall/c1", None)),
    ],
)
def test_its_verbs_are_its_commands(words: str, request_sent: Any, sent: list[Any]) -> None:
    result = CliRunner().invoke(main, words.split())
    assert sent == [request_sent], result.output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("create camera hall/c1", "create camera needs --watt\n"),
        ("create camera c1 --watts.idle 1", "write it as ROOM/CAMERA"),
        ("create camera hall/c1 --watts.idle 1 --lens.coat shiny", "'shiny' is not one of 'mat', 'gloss'"),
        ("create camera hall/c1 --watts.idle 1 --ports x", "--port: 'x' is no number"),
        ("wipe camera hall/c1", "Missing option '--layer'"),
        ("get camrea", "Did you mean 'camera'"),
        ("explain camera hall/c1", "cameras do not go with 'explain'"),
        ("wait camera hall/c1 --for broken", "'broken' is not one of 'on', 'off', 'deleted'"),
        ("move camera hall/c1", "cameras do not go with 'move'"),
    ],
)
def test_wrong_use_of_it_is_said(words: str, said: str, sent: list[Any]) -> None:
    result = CliRunner().invoke(main, words.split())
    assert (result.exit_code, said in result.output, sent) == (2, True, []), result.output


@pytest.mark.parametrize("verb", ["get", "describe", "history", "wait", "create", "set", "rehang", "wipe", "delete"])
def test_help_has_it(verb: str, sent: list[Any]) -> None:
    assert "camera" in CliRunner().invoke(main, [verb, "--help"]).output
    assert CliRunner().invoke(main, [verb, "camera", "--help"]).exit_code == 0


FILE = """
{kind: Camera, room: hall, name: c1, rack: r1, model: m, watts: {idle: 4}, lens: {coat: mat}, ports: [1]}
---
{kind: Rack, name: r1, region: n, dc: d}
"""
NOW = {"room": "hall", "name": "c1", "rack": "r1", "model": "m", "watts": {"idle": 4}, "ports": [1], "version": 7}


def test_files_make_and_change_it_by_its_commands() -> None:
    read = files.read(FILE, file="f", kinds=Kinds(with_camera()))
    assert [one.name for one in read] == ["r1", "hall/c1"]
    camera = read[1]
    now = {**NOW, "lens": {"coat": "mat", "focus": 2}}
    assert plan.step(camera, now).outcome == "unchanged"
    (made,) = plan.step(camera, None).requests
    assert (made.command, made.path, made.body["room"]) == ("camera.create", "/v1/cameras", "hall")
    changed = plan.step(camera, {**now, "rack": "r2", "watts": {"idle": 4, "full": 1}, "lens": {"coat": "gloss"}})
    assert [(one.command, one.body) for one in changed.requests] == [
        ("camera.set", {"watts": {"idle": 4, "full": 0}, "lens": {"coat": "mat"}}),
        ("camera.rehang", {"rack": "r1"}),
    ]
    with pytest.raises(Failed, match=r"camera c1, field model: it is \"x\", as its creation decided for good"):
        plan.step(camera, {**now, "model": "x"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{kind: Camera, name: c}", "field room: it is missing, and a camera needs it"),
        ("{kind: Camera, name: c, room: r, watts: {a: x}}", "field watts.a: write a whole number without quotes"),
        ("{kind: Camera, name: c, room: r, watts: {}, lens: {cot: mat}}", "field lens.cot: there is no such field"),
        ("{kind: Camera, name: c, room: r, watts: {}, lens: {coat: x}}", "field lens.coat: write one of mat, gloss"),
        ("{kind: Camera, name: c, room: r, watts: {}, ports: [1, a]}", r"field ports\[1\]: write a whole number"),
        ("{kind: Camera, name: c, room: r, wats: {}}", "a camera has no such field; did you mean watts"),
    ],
)
def test_files_are_checked_by_its_schema(text: str, said: str) -> None:
    with pytest.raises(files.BadDocument, match=said):
        files.read(text, file="f", kinds=Kinds(with_camera()))


def test_no_two_of_its_flags_are_called_the_same() -> None:
    """Of every command of every kind."""
    kinds = Kinds(with_camera())
    for kind in kinds:
        for one in kind.commands:
            names = [name for flag in flags.of_command(one, kind, kinds) for name in flag.option.opts]
            assert len(set(names)) == len(names), (one.name, json.dumps(sorted(names)))
