import asyncio
import io
import json
import re
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import structlog

from workers.log import Lines, log_to_stderr


class Written(BytesIO):
    """A file that keeps each of its writes apart."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> int:
        self.writes.append(bytes(data))
        return len(data)


def written(tell: Callable[[Lines], Awaitable[None]]) -> list[bytes]:
    async def run() -> None:
        await tell(Lines(file))

    file = Written()
    asyncio.run(run())
    return file.writes


def test_what_one_round_of_the_event_loop_tells_is_one_write() -> None:
    async def tell(lines: Lines) -> None:
        lines.info(b"1\n")
        lines.info(b"2\n")
        await asyncio.sleep(0)
        lines.info(b"3\n")

    assert written(tell) == [b"1\n2\n", b"3\n"]


def test_a_warning_is_written_at_once_after_what_was_told_before_it() -> None:
    file = Written()

    async def tell() -> None:
        lines = Lines(file)
        lines.info(b"1\n")
        lines.warning(b"2\n")
        assert file.writes == [b"1\n2\n"]

    asyncio.run(tell())


def test_a_thread_without_an_event_loop_waits_for_none() -> None:
    file = Written()
    lines = Lines(file)
    told = threading.Thread(target=lines.info, args=(b"1\n",))
    told.start()
    told.join()
    lines.info(b"2\n")
    assert file.writes == [b"1\n", b"2\n"]


def test_no_line_is_lost_when_a_process_ends() -> None:
    """Even if its event loop stops before the round's end."""
    program = """
import asyncio, structlog
from workers.log import log_to_stderr
log_to_stderr("info")
log = structlog.get_logger()
def tell():
    log.debug("not asked for")
    try:
        1 / 0
    except ZeroDivisionError:
        log.exception("request failed", command=object)
    log.info("request answered", status=202)
loop = asyncio.new_event_loop()
loop.call_soon(tell)
loop.call_soon(loop.stop)
loop.run_forever()
"""
    ended = subprocess.run([sys.executable, "-c", program], stderr=subprocess.PIPE, check=True)
    failed, answered = (json.loads(line) for line in ended.stderr.splitlines())
    assert (failed["event"], failed["level"], failed["command"]) == ("request failed", "error", "<class 'object'>")
    assert "ZeroDivisionError: division by zero" in failed["exception"]
    assert (answered["event"], answered["level"], answered["status"]) == ("request answered", "info", 202)
    assert failed["timestamp"] <= answered["timestamp"]


def test_nothing_unprintable_reaches_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    try:
        log_to_stderr("info")
        structlog.get_logger().info("told \x1b[2J", path="/\x9b31m", who="\u202epay", where="支付部", why={"a": "\x1b"})
    finally:
        structlog.reset_defaults()
    shown = re.sub(r"\x1b\[\d*m", "", screen.getvalue())  # its own colours
    assert shown.rstrip("\n").isprintable()
    assert "/\\x9b31m" in shown
    assert "支付部" in shown


def test_a_full_file_is_put_aside_while_the_process_runs(tmp_path: Path) -> None:
    program = """
import os, sys, structlog
from pathlib import Path
from workers import log
log.FILE_BYTES_MAX = 10_000
log.log_to_stderr("info", file=Path(sys.argv[1]))
told = structlog.get_logger()
for n in range(250):
    told.info("request answered", n=n)
os.write(1, b"and whatever else the process says\\n")
"""
    file = tmp_path / "api.log"
    file.write_bytes(b"x" * 9_000 + b"\n")  # what an earlier run left counts
    with open(file, "ab") as stream:
        subprocess.run([sys.executable, "-c", program, str(file)], stdout=stream, stderr=stream, check=True)
    last = file.read_bytes().splitlines()
    before = file.with_suffix(".log.1").read_bytes().splitlines()
    assert last[-1] == b"and whatever else the process says"
    assert max(file.stat().st_size, file.with_suffix(".log.1").stat().st_size) < 11_000
    numbers = [json.loads(line)["n"] for line in [*before, *last[:-1]] if line.startswith(b"{")]
    assert numbers == list(range(numbers[0], 250)), "no line is lost between the two files"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["api.log", "api.log.1"]
