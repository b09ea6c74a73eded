"""A child process that is started again whenever it ends, with a back-off if it keeps ending."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

import structlog

from workers import child, embedded
from workers.log import FILE_BYTES_MAX

log = structlog.get_logger()


class RestartedProcess:
    """`launch` starts it, given the file that its output goes to."""

    def __init__(
        self,
        name: str,
        launch: Callable[[IO[bytes]], subprocess.Popen[bytes]],
        *,
        log_file: Path,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> None:
        self.name = name
        self.log_file = log_file
        self.stop_signal = stop_signal
        self._launch = launch
        self._deaths_in_a_row = 0
        self._launched_at = 0.0
        self._due_at = 0.0
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self) -> None:
        with open(self.log_file, "ab") as stream:
            self.adopt(self._launch(stream))

    def adopt(self, process: subprocess.Popen[bytes]) -> None:
        self.process, self._launched_at = process, time.monotonic()

    def revive(self) -> bool:
        """Start it again if it has ended and its back-off is over; True if it was started."""
        now = time.monotonic()
        if self.process is not None:
            if (exit_code := self.process.poll()) is None:
                return False
            self.process = None
            self._deaths_in_a_row = 0 if now - self._launched_at >= child.STEADY_S else self._deaths_in_a_row + 1
            self._due_at = now + child.back_off_s(self._deaths_in_a_row)
            last_lines = embedded.last_lines(self.log_file)
            log.warning("process ended", process=self.name, exit=exit_code, last_lines=last_lines)
        if now < self._due_at:
            return False
        try:
            self.launch()
        except (OSError, subprocess.SubprocessError, embedded.EmbeddedFailed) as failure:
            log.error("process not started", process=self.name, reason=str(failure))
            self._due_at = now + child.BACK_OFF_S_MAX
            return False
        log.info("process restarted", process=self.name, pid=self.pid)
        return True

    @property
    def pid(self) -> int | None:
        return None if self.process is None else self.process.pid

    @property
    def due_in_s(self) -> float | None:
        """The time until it is started again; None while it runs."""
        return None if self.process is not None else max(0.0, self._due_at - time.monotonic())

    def cut_log(self) -> None:
        """Rotate the log of a process that can't do so itself. Keeps one old file; lines written meanwhile are lost."""
        if self.log_file.stat().st_size > FILE_BYTES_MAX:
            shutil.copyfile(self.log_file, self.log_file.with_suffix(".log.1"))
            os.truncate(self.log_file, 0)

    def ask_to_stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(self.stop_signal)

    def await_end(self, deadline: float) -> None:
        if self.process is None:
            return
        try:
            self.process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("process killed", process=self.name, reason="it did not stop in time")
            self.process.kill()
            self.process.wait()
