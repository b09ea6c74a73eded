"""A refusal reads as a person wants to read it."""

from cli import refusal


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


def test_what_was_probably_meant_stands_at_the_end() -> None:
    problem = {"title": "Not found", "code": "not_found", "kind": "group", "name": "sdt", "did_you_mean": ["std"]}
    assert refusal.lines(problem) == ["berth: Not found", "  did you mean std?"]


def test_nothing_is_said_twice() -> None:
    detail = "There is no group 'sdt'. Did you mean 'std'?"
    problem = {"title": "Not found", "code": "not_found", "detail": detail, "did_you_mean": ["std"]}
    assert refusal.lines(problem) == ["berth: Not found", f"  {detail}"]


def test_who_is_not_known_is_told_how_to_say_so() -> None:
    lines = refusal.lines({"title": "Who are you?", "code": "unauthenticated", "detail": "Send the header X."})
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
