"""The one place through which everything leaves that `berth` says: to a terminal, a pipe or a file.

Names, labels, reasons and a server's own words were written by others. What is unprintable in them (control
characters, marks that turn the reading direction, invisible ones) is shown as its code, `\\x1b` or `\\u202e`: it cannot
move the cursor, and two names that differ in it differ to the eye. A reader that went away (`| head`) is no fault.
"""

import contextlib
import os
import re
import shutil
import sys
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import TextIO

import click

from cli.errors import Failed

# Control characters, soft hyphen, zero-width and direction marks, line separators, halves of characters, tags. Not the
# joiners U+200C and U+200D: Persian, Indic scripts and many emoji need them.
_UNPRINTABLE = (
    "\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\ufffe\uffff\U000e0000-\U000e007f"
)
_LINE_END = re.compile(r"[\t\r\n]+")
_IN_A_TEXT = re.compile(f"(?![\t\n])[{_UNPRINTABLE}]")
COLUMNS_DEFAULT = 80


def printable(text: str) -> str:
    """`text` on one line; line ends and tabs become spaces, what else is unprintable its code."""
    return text if text.isprintable() else escaped(_LINE_END.sub(" ", text))


def code(sign: str) -> str:
    """An unprintable character as Python and YAML write it in a string."""
    number = ord(sign)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def escaped(text: str, *, code: Callable[[str], str] = code) -> str:
    """`text` of several lines, with what is unprintable in it as its code."""
    return _IN_A_TEXT.sub(lambda match: code(match.group()), text)


def say(text: str = "", *, err: bool = False) -> None:
    """Print lines for people, to stdout or stderr; long ones are folded at a terminal's width."""
    shown, stream = escaped(text), sys.stderr if err else sys.stdout
    if stream is not None and stream.isatty():
        shown = "\n".join(part for line in shown.split("\n") for part in fold(line, columns()))
    _write(shown + "\n", err=err)


def data(text: str) -> bool:
    """Print data (json, yaml, csv) as it is, but for what a terminal would obey; False if the reader is gone."""
    return _write(escaped(text) if for_a_person() else text, err=False)


def for_a_person() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def columns() -> int:
    """The width of the terminal in cells."""
    return shutil.get_terminal_size((COLUMNS_DEFAULT, 24)).columns


def width(text: str) -> int:
    """How many cells of a terminal printable text takes: two for a Chinese character, none for a combining mark."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def cut(text: str, cells: int) -> str:
    """`text` in at most so many cells; what was cut off is an ellipsis."""
    if width(text) <= cells:
        return text
    return text[: _fitting(text, max(0, cells - 1))] + "…"


def fold(line: str, cells: int) -> list[str]:
    """`line` in lines of so many cells, broken at spaces where there are any; what follows the first is indented."""
    indent = " " * min(len(line) - len(line.lstrip()) + 4, cells // 2)
    found = []
    while width(line) > cells:
        room = _fitting(line, cells)
        at = line.rfind(" ", len(indent) + 1, room + 1)
        head, line = (line[:room], line[room:]) if at < 0 else (line[:at], line[at + 1 :])
        found.append(head.rstrip())
        line = indent + line.lstrip()
    return [*found, line]


def run(command: Callable[[], object]) -> int:
    """Run a whole call of `berth`, say what went wrong, and answer with its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal's encoding lacks is no crash
    stdout = sys.stdout
    try:
        code = command()
        _write("", err=False)
        return code if isinstance(code, int) else 0
    except click.exceptions.Abort:
        return _ended("berth: interrupted; what was sent by then stays (`berth audit` shows it)", code=1)
    except Failed as failed:
        return _ended("\n".join(failed.lines()), code=failed.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        return _ended(error.format_message(), code=error.exit_code)
    except click.UsageError as error:
        return _ended(_usage(error), code=error.exit_code)
    except click.ClickException as error:
        return _ended(f"berth: {error.format_message()}", code=error.exit_code)
    except SystemExit as ended:
        # When nobody reads its help, click ends itself with 1, and leaves another stream as stdout.
        return int(ended.code or 0) if sys.stdout is stdout else 0
    except OSError as error:
        _drop(sys.stdout)
        where = f"{error.filename}: " if error.filename else "cannot write the answer: "
        return _ended(f"berth: {where}{error.strerror or error}", code=1)


def _usage(error: click.UsageError) -> str:
    lines = [error.ctx.get_usage()] if error.ctx is not None else []
    if error.ctx is not None and error.ctx.command.get_help_option(error.ctx) is not None:
        lines.append(f"Try '{error.ctx.command_path} --help' for help.")
    return "\n".join([*lines, "", f"Error: {error.format_message()}"])


def _ended(text: str, *, code: int) -> int:
    with contextlib.suppress(Failed):  # stderr may be as full as stdout; the exit code is all that can be told then
        say(text, err=True)
    return code


def _fitting(text: str, cells: int) -> int:
    """How many of its characters take at most so many cells."""
    for index, sign in enumerate(text):
        cells -= _cells(sign)
        if cells < 0:
            return index
    return len(text)


def _write(text: str, *, err: bool) -> bool:
    stream = sys.stderr if err else sys.stdout
    if stream is None:  # closed by the caller
        return True
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        _drop(stream)
        return False
    except OSError as error:
        _drop(stream)
        raise Failed(f"cannot write the answer: {error.strerror or error}") from None
    return True


def _drop(stream: TextIO) -> None:
    """Send what is still buffered, and what follows, nowhere: else the interpreter complains about it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


@lru_cache(maxsize=8192)
def _cells(sign: str) -> int:
    if unicodedata.category(sign) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in ("W", "F") else 1
