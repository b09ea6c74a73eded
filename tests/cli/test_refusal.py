"""A refusal reads as a person wants to read it."""

from typing import Any

import pytest

from cli import refusal, terminal


def test_no_capacity_says_why_how_near_and_what_else() -> None:
    lines = refusal.lines(
        {
            "type": "/problems/no_capacity",
            "title": "No capacity",
            "status": 409,
            "code": "no_capacity",
            "detail": "No host of std has room. Ask for less, or take another group.",
            "group": "std",
            "requested": {"cpu": 64, "memory_mib": 8192},
            "considered": 42,
            "reasons": [{"reason": "state", "hosts": 2}, {"reason": "insufficient:cpu", "hosts": 40}],
            "nearest": {"host": "h7", "short": {"cpu": 4}},
            "largest_fit": {"cpu": 60, "memory_mib": 7680},
            "alternatives": [{"group": "mem", "hosts": 3, "quota_ok": False}],
        }
    )
    assert lines == [
        "berth: No capacity",
        "  No host of std has room. Ask for less, or take another group.",
        "  group: std",
        "  requested: cpu 64, memory 8 GiB",
        "  hosts considered: 42",
        "  why not           hosts",
        "  insufficient:cpu     40",
        "  state                 2",
        "  nearest: host h7 lacks cpu 4",
        "  the largest of this shape that would fit: cpu 60, memory 7.5 GiB",
        "  groups that would take it now:",
        "  group  hosts  has quota",
        "  mem        3  no",
    ]


def test_quota_exceeded_shows_every_tenant_that_is_short() -> None:
    lines = refusal.lines(
        {
            "title": "Quota exceeded",
            "code": "quota_exceeded",
            "shortfalls": [
                {
                    "resource": "memory_mib",
                    "limit": 8192,
                    "used": 4096,
                    "requested": 8192,
                    "short": 4096,
                    "tenant": "pay",
                },
                {"resource": "cpu", "limit": None, "used": None, "requested": 8, "short": 1, "tenant": None},
            ],
        }
    )
    assert lines == [
        "berth: Quota exceeded",
        "  tenant  class   limit   used  requested  short",
        "  pay     memory  8 GiB  4 GiB      8 GiB  4 GiB",
        "  –       cpu         –      –          8      1",
    ]


def test_a_validation_names_each_field() -> None:
    lines = refusal.lines(
        {
            "title": "Validation failed",
            "code": "validation",
            "detail": "/resources/cpu: must be a whole number",
            "errors": [{"field": "/resources/cpu", "message": "must be a whole number"}],
        }
    )
    assert lines == ["berth: Validation failed (validation)", "  /resources/cpu: must be a whole number"]


def test_a_missing_reason_is_called_by_its_flag() -> None:
    problem = {"title": "t", "code": "validation", "errors": [{"field": "/reason", "message": "say why"}]}
    assert refusal.lines(problem)[-1] == "  --reason: say why"


def test_what_was_probably_meant_stands_at_the_end() -> None:
    problem = {"title": "Not found", "code": "not_found", "kind": "group", "name": "sdt", "did_you_mean": ["std"]}
    assert refusal.lines(problem) == ["berth: Not found", "  did you mean std?"]


def test_nothing_is_said_twice() -> None:
    detail = "There is no group 'sdt'. Did you mean 'std'?"
    problem = {"title": "Not found", "code": "not_found", "detail": detail, "did_you_mean": ["std"]}
    assert refusal.lines(problem) == ["berth: Not found", f"  {detail}"]


def test_who_is_not_known_is_told_how_to_say_so() -> None:
    lines = refusal.lines(
        {"title": "Authentication required", "code": "unauthenticated", "detail": "Send the header X."}
    )
    assert "berth login" in lines[-1]
    assert not any("header" in line for line in lines)


def test_a_problem_of_several_groups_says_each_ones() -> None:
    problem = {
        "title": "No capacity",
        "code": "no_capacity",
        "groups": {"a": {"detail": "full"}, "b": {"code": "no_quota"}},
    }
    assert refusal.lines(problem)[1:] == ["  a: full", "  b: no_quota"]
    assert refusal.lines({"title": "No quota", "code": "no_quota", "groups": ["mem"]})[1:] == ["  has quota in: mem"]


def test_only_what_was_recorded_is_said_to_be() -> None:
    problem = {"title": "Conflict", "code": "conflict", "command": "c1"}
    assert refusal.lines(problem) == ["berth: Conflict"]
    assert refusal.lines({**problem, "instance": "/v1/commands/c1"})[-1] == "  recorded as command c1"


PROBLEMS: dict[str, dict[str, Any]] = {
    "malformed": {"errors": [{"field": "", "message": "is no JSON"}]},
    "validation": {"errors": [{"field": "/cpu", "message": "must be whole"}]},
    "unauthenticated": {},
    "forbidden": {"permission": "vm.create"},
    "not_found": {"kind": "group", "name": "sdt", "did_you_mean": "std"},
    "method_not_allowed": {},
    "too_large": {"limit": 65536},
    "too_slow": {"bytes_per_s_min": 65536},
    "unsupported_media_type": {},
    "already_exists": {"name": "a", "used_by": ["vm/t/a"]},
    "in_use": {"name": "a", "used_by": ["vm/t/a", "vm/t/b"]},
    "conflict": {"name": "a"},
    "invalid_state": {"state": "deleting", "allowed": ["active"], "operation": "op-1"},
    "quota_exceeded": {
        "tenant": "a",
        "group": "g",
        "shortfalls": [
            {"resource": "cpu", "limit": 4, "used": 4, "requested": 1, "short": 1, "tenant": "a", "group": "g"}
        ],
    },
    "no_quota": {"tenant": "a", "group": "g", "groups": ["h"]},
    "no_capacity": {
        "group": "g",
        "requested": {"cpu": 4},
        "considered": 2,
        "reasons": [{"reason": "state", "hosts": 2}],
        "nearest": None,
        "largest_fit": None,
        "alternatives": [],
        "pool": "w",
        "wanted": 3,
        "placed": 1,
    },
    "protected": {"kind": "vm", "name": "t/a"},
    "incompatible": {"conflicts": [{"subject": "cni", "needs": "1.30", "has": "1.28"}], "path": ["1.29", "1.30"]},
    "no_address": {
        "network": "n",
        "prefixes": [{"name": "10.0.0.0/24", "usable": 250, "used": 250, "reserved": 0, "quarantined": 0}],
    },
    "unreachable": {"from": "network/n", "needs": "pool/p"},
    "policy": {"policy": "wipe", "needs": "a reason"},
    "plan_changed": {"difference": [{"host": "h1", "was": "idle", "is": "busy"}]},
    "below_use": {"would_break": [{"kind": "quota", "name": "g/a", "resource": "cpu", "limit": 1, "used": 4}]},
    "suspended": {"tenant": "a"},
    "operation_failed": {"operation": "op-1", "step": "vm.create", "reason": "no image", "resource": {"name": "a"}},
    "version_mismatch": {"version": 9},
    "idempotency_mismatch": {"command": "c-1"},
    "rate_limited": {},
    "unavailable": {"command": "c-1"},
    "internal": {},
    "aborted": {"index": 3},
    "of_tomorrow": {"facts": [{"one": 1, "two": None}], "more": {"a": 1}},
}


@pytest.mark.parametrize("code", PROBLEMS)
def test_every_code_reads_as_sentences_and_facts(code: str) -> None:
    """What to do next (the detail) is always there, and no fact is dropped or printed as a program's data."""
    facts = PROBLEMS[code]
    problem = {"title": code, "status": 409, "code": code, "detail": "Do this next.", **facts}
    lines = refusal.lines(problem)
    text = "\n".join(lines)
    assert lines[0].startswith("berth: ")
    assert ("Do this next." in text) == (code != "unauthenticated")
    assert all(line == terminal.printable(line) for line in lines)
    assert not set("{}[]'") & set(text.replace("'berth", ""))
    said = {name: value for name, value in facts.items() if name not in refusal.QUIET and value not in (None, [])}
    for name, value in said.items():
        leaves = (
            [leaf for entry in value for leaf in entry.values()]
            if isinstance(value, list) and isinstance(value[0], dict)
            else [value]
            if not isinstance(value, list | dict)
            else list(value)
        )
        assert all(str(leaf) in text for leaf in leaves if leaf is not None), (name, text)


def test_what_one_types_next_is_said_with_its_names() -> None:
    assert refusal.lines({"code": "suspended", "tenant": "corp"})[-1] == "  `berth resume tenant corp` lifts it"
    granted = refusal.lines({"code": "no_quota", "group": "g", "tenant": "a"})
    assert granted[-1] == "  `berth set quota g/a --cpu 8` gives it one of 8 vCPU"
    stuck = {"code": "invalid_state", "state": "deleting", "operation": "op-1", "ways_out": ["retry", "settle"]}
    assert refusal.lines(stuck)[-4:] == [
        "  the ways out:",
        "    berth retry operation op-1 --wait",
        "    berth settle operation op-1 --as succeeded --reason 'how I know'",
        "    berth settle operation op-1 --as failed --reason 'how I know'",
    ]
    assert "describe" not in "".join(refusal.lines({"code": "invalid_state", "state": "deleting"}))
