"""Nothing unprintable reaches a terminal, data stays exact, and a reader that goes away is no fault."""

import ast
import contextlib
import csv
import io
import json
import os
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from cli import description, output, refusal, tables, terminal, yaml_text
from tests.cli.conftest import KINDS, Printed

CLI = Path(terminal.__file__).parent
# Escape, C1's CSI, DEL, bell, override and isolate of the direction, line separator, byte-order mark, a tag.
BAD = "\x1b[2J\x9b31m\x7f\x07\u202egnp\u2066\u2028\ufeff\U000e0041"
MARKS_OF_DIRECTION = "\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"

HOST = {
    "name": f"h{BAD}",
    "display_name": BAD,
    "state": "available",
    "group": BAD,
    "labels": {f"k{BAD}": BAD},
    "macs": [BAD],
    "bmc": {"address": BAD, f"x{BAD}": [BAD]},
    "inventory": [{f"f{BAD}": BAD}, {"part": {f"p{BAD}": 1}}],
    "capacity": {f"c{BAD}": 4},
    "used": {f"c{BAD}": 1},
}


def is_printable(text: str) -> bool:
    return not [sign for sign in text.replace("\n", "") if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp")] and (
        not set(text) & {*MARKS_OF_DIRECTION, "\ufeff", "\U000e0041"}
    )


def test_every_control_character_is_shown_as_its_code() -> None:
    for number in range(sys.maxunicode + 1):
        sign = chr(number)
        if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") or sign in MARKS_OF_DIRECTION:
            assert is_printable(terminal.printable(sign)), hex(number)
            assert sign in "\t\n" or is_printable(terminal.escaped(sign)), hex(number)
    assert terminal.printable("a\x1b[2Jb\x9b\u202e") == "a\\x1b[2Jb\\x9b\\u202e"


def test_scripts_and_emoji_stay_as_they_are() -> None:
    for text in ("支付部", "پیام\u200cها", "क्\u200dष", "👩\u200d💻", "naïve – “x”", "全\u3000形"):
        assert terminal.printable(text) == text


@pytest.mark.parametrize("form", output.FORMATS)
def test_no_form_lets_what_others_wrote_move_the_cursor(form: str, on_screen: Printed) -> None:
    with on_screen() as screen:
        output.resources(KINDS["host"], [HOST], form=form)
        output.resources(KINDS["vm"], [{**HOST, "tenant": BAD, "addresses": [BAD], "reason": BAD}], form=form)
        output.entries([{"actor": BAD, "reason": BAD, "request": {BAD: BAD}}], ("actor", "reason"), form=form)
    assert len(screen.getvalue()) > 100
    assert is_printable(screen.getvalue())


def test_descriptions_changes_and_refusals_are_printable() -> None:
    shown = description.lines(KINDS["host"], HOST)
    shown += description.changes({"before": {"labels": {}}, "after": {"labels": {f"k{BAD}": BAD}, BAD: BAD}})
    shown += refusal.lines({"title": BAD, "code": "x", "detail": BAD, "groups": {BAD: {"detail": BAD}}, BAD: BAD})
    shown += refusal.lines({"code": "validation", "detail": "", "errors": [{"field": BAD, "message": BAD}]})
    for line in shown:
        terminal.say(line)
        assert is_printable(terminal.escaped(line)), ascii(line)


def test_a_value_cannot_make_a_line_of_its_own(on_screen: Printed) -> None:
    with on_screen() as screen:
        output.resources(KINDS["tenant"], [{"name": "a", "display_name": "x\nb  forged\ty"}], form="table")
    assert len(screen.getvalue().splitlines()) == 2


def test_all_words_leave_through_the_one_place() -> None:
    for path in CLI.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and path.name != "terminal.py":
                said = ast.unparse(node.func)
                assert said not in ("print", "click.echo", "click.secho", "sys.stdout.write", "sys.stderr.write"), path


def test_a_table_of_csv_on_a_terminal_has_nothing_that_it_would_obey(on_screen: Printed) -> None:
    with on_screen() as screen:
        output.rows([["name"]], [["a\rb\x1b[2Jc\u2028d\u200be\u202ef"]])
    assert screen.getvalue() == "name\na\\x0db\\x1b[2Jc\\u2028d\\u200be\\u202ef\n"


def test_a_file_of_csv_holds_what_was_written(in_file: Printed) -> None:
    with in_file() as file:
        output.data([HOST], form="csv")
    (row,) = csv.DictReader(io.StringIO(file.getvalue()))
    assert row["display_name"] == BAD


texts = st.text(alphabet=st.characters(codec="utf-8"))
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_json_and_yaml_are_exact_and_printable(value: Any) -> None:
    as_json, as_yaml = output.json_text(value, indent=2), yaml_text.text(value)
    assert json.loads(as_json) == value
    assert yaml.safe_load(as_yaml) == value
    assert is_printable(as_json)
    assert is_printable(as_yaml)


@pytest.mark.parametrize("word", ["yes", "No", "NULL", "~", "1", "0x1f", "1_000", "12:30", "2026-12-01", ".5", "=", ""])
def test_a_string_that_looks_like_something_else_is_quoted(word: str) -> None:
    assert yaml.safe_load(yaml_text.text({"key": word, word: "value"})) == {"key": word, word: "value"}


def test_a_chinese_character_takes_two_cells_and_an_accent_none() -> None:
    assert [terminal.width(text) for text in ("pay", "支付部", "e\u0301", "a\u200db")] == [3, 6, 1, 2]
    assert terminal.cut("支付部", 5) == "支付…"
    assert terminal.cut("支付部", 4) == "支…"
    assert terminal.cut("支付部", 6) == "支付部"


def test_a_full_disk_is_said_and_a_closed_pipe_is_no_fault(capsys: pytest.CaptureFixture[str]) -> None:
    with open("/dev/full", "w") as full, contextlib.redirect_stdout(full):
        assert terminal.run(lambda: terminal.say("x")) == 1
    assert capsys.readouterr().err == "berth: cannot write the answer: No space left on device\n"
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe, contextlib.redirect_stdout(pipe):
        assert terminal.run(lambda: terminal.say("x")) == 0
    assert capsys.readouterr().err == ""


def seconds_of(action: Callable[[], object]) -> float:
    """CPU time, the least of three."""
    taken = []
    for _ in range(3):
        started = time.process_time()
        action()
        taken.append(time.process_time() - started)
    return min(taken)


def test_yaml_and_a_table_of_thousands_of_hosts_cost_little_more_than_json() -> None:
    amounts = {"cpu": 64, "memory_mib": 262144, "storage_gib": 4000}
    hosts = [
        {
            "uid": f"01a23088-eaac-7170-ae84-{n:012x}",
            "name": f"h{n:05}",
            "display_name": f"高雄 {n} 號",
            "state": "available",
            "labels": {"model": "s64", "disk": "nvme"},
            "created_at": f"2026-12-01T07:36:49.{n:06}Z",
            "group": "std",
            "rack": f"kh-{n // 40}",
            "capacity": amounts,
            "used": dict.fromkeys(amounts, n % 64),
            "vms": [f"acme/web-{n}"],
        }
        for n in range(3000)
    ]
    as_json = seconds_of(lambda: json.dumps(hosts, ensure_ascii=False, indent=2))
    assert seconds_of(lambda: yaml_text.text(hosts)) < 5 * as_json
    assert seconds_of(
        lambda: tables.text_lines(tables.fit(tables.of_kind(KINDS["host"], hosts, human=True), 80))
    ) < 8 * (as_json)
