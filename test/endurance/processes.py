"""Processes with resource measurements."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Sequence

END_TIMEOUT_S = 60.0
PROFILES_VARIABLE = 'FASTRTPS_DEFAULT_PROFILES_FILE'
TRANSPORTS_VARIABLE = 'FASTDDS_BUILTIN_TRANSPORTS'
RANGE_VARIABLE = 'ROS_AUTOMATIC_DISCOVERY_RANGE'
WITHOUT_SHARED_MEMORY = {
    PROFILES_VARIABLE: '',
    TRANSPORTS_VARIABLE: 'UDPv4',
    # With LOCALHOST, rmw_fastrtps adds the shared memory to any other transport.
    RANGE_VARIABLE: 'SUBNET',
}
"""
Environment of processes that receive over UDP only.

Fast DDS 2.14 can deadlock in a publisher if a subscriber is killed while it reads from the shared
memory (see `metrabs_ros.node.watchdog`), and can loop without end in a subscriber if its publisher
is removed before the samples in the shared memory are read.
"""


@dataclasses.dataclass(frozen=True)
class Sample:
    """
    Resource usage of a process.

    Parameters
    ----------
    time_s
        Time on the monotonic clock, in seconds.
    rss_bytes
        Resident memory.
    threads, descriptors
        Number of threads and of open file descriptors.
    is_active
        Whether the node has been active long enough for comparable samples.
    """

    time_s: float
    rss_bytes: int
    threads: int
    descriptors: int
    is_active: bool


TRANSPORT = {
    PROFILES_VARIABLE: os.environ.get(PROFILES_VARIABLE, ''),
    TRANSPORTS_VARIABLE: os.environ.get(TRANSPORTS_VARIABLE, 'DEFAULT'),
    RANGE_VARIABLE: os.environ.get(RANGE_VARIABLE, 'SUBNET'),
}
"""Transport of started processes, independent of the transport of this process."""


class ObservedProcess:
    """
    Process with its output redirected to a file.

    Parameters
    ----------
    command
        Program and arguments.
    log
        Output file.
    environment
        Additional environment variables.
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
                env={**os.environ, **TRANSPORT, **(environment or {})},
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def exit_status(self) -> int | None:
        """Exit status; None while the process is running."""
        return self._process.poll()

    def sample(self, is_active: bool) -> Sample:
        """Return the current resource usage."""
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
        """Send a signal if the process is running."""
        if self.exit_status is None:
            self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGINT) -> int:
        """Send a signal, wait for the end and return the exit status; -9 after a timeout."""
        self.send(number)
        return self.wait(END_TIMEOUT_S)

    def wait(self, timeout_s: float) -> int:
        """Wait for the end and return the exit status; kill the process after a timeout."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
