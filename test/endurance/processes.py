"""Processes under observation."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Sequence

END_TIMEOUT_S = 60.0


@dataclasses.dataclass(frozen=True)
class Sample:
    """
    What a process occupies.

    Parameters
    ----------
    time_s
        On the monotonic clock.
    rss_bytes
        Resident memory.
    threads, descriptors
        Numbers of threads and of open file descriptors.
    is_active
        Whether the node has been active for a while, so that samples can be compared.
    """

    time_s: float
    rss_bytes: int
    threads: int
    descriptors: int
    is_active: bool


class ObservedProcess:
    """
    A process whose output goes to a file.

    Parameters
    ----------
    command
        The program and its arguments.
    log
        The file of its output.
    environment
        Variables in addition to those of this process.
    """

    def __init__(
        self, command: Sequence[str], log: pathlib.Path, environment: dict[str, str] | None = None
    ) -> None:
        self.log = log
        with log.open('ab') as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
            )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._process.poll()

    def sample(self, is_active: bool) -> Sample:
        """Return what it occupies now."""
        folder = pathlib.Path('/proc') / str(self.pid)
        lines = (line.split(':') for line in (folder / 'status').read_text().splitlines())
        status = {name: value.split() for name, value in lines}
        return Sample(
            time_s=time.monotonic(),
            rss_bytes=1024 * int(status['VmRSS'][0]),
            threads=int(status['Threads'][0]),
            descriptors=len(list((folder / 'fd').iterdir())),
            is_active=is_active,
        )

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self.exit_status is None:
            self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal, wait for the end and return the exit status; -9 if it did not end."""
        self.send(number)
        return self.wait(END_TIMEOUT_S)

    def wait(self, timeout_s: float) -> int:
        """Wait for the end and return the exit status; -9 if it had to be killed."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
