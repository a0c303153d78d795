"""Processes that are started here, end with this one, and are waited for while they work."""

from __future__ import annotations

import ctypes
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

POLL_PERIOD_S = 0.05
IDLE_PATIENCE_S = 10.0
"""A process that was asked to end and calculates nothing for so long is killed."""
END_PATIENCE_S = 60.0
"""A process that was asked to end has this long at most."""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_PRCTL = getattr(_LIBC, 'prctl', None)


def end_with_parent() -> None:
    """
    Have the kernel kill this process when its parent ends; for ``preexec_fn``.

    It does so also where the parent is killed and can end nothing itself.
    """
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)


class ChildProcess:
    """
    A process that ends with this one.

    It is in a session of its own, so that Ctrl-C reaches this process alone.

    Parameters
    ----------
    name
        What it is called in messages.
    arguments
        The command.
    environ
        Its environment.
    """

    def __init__(self, name: str, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        self.name = name
        parent = os.getpid()

        def end_with_this_one() -> None:
            end_with_parent()
            # This one may have ended before.
            if os.getppid() != parent:
                os._exit(1)

        self._process = subprocess.Popen(
            arguments, env=environ, start_new_session=True, preexec_fn=end_with_this_one
        )

    @property
    def status(self) -> int | None:
        """The exit status, the negative number of a signal, or None while it runs."""
        return self._process.poll()

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        status = self.status
        if status is None:
            return f'{self.name} runs'
        if status < 0:
            return f'{self.name} was ended by {_signal_name(-status)}'
        return f'{self.name} ended with exit status {status}'

    def end(self, is_urgent: Callable[[], bool] = lambda: False) -> int:
        """
        Ask it to end, kill it if it does not, and return its exit status.

        It may take its time as long as it calculates; a machine under load is slow.

        Parameters
        ----------
        is_urgent
            Tells whether to kill it at once.
        """
        if self._process.poll() is None:
            # Not SIGINT, at which a process that is still importing would print a traceback.
            self._process.terminate()
        start_s = time.monotonic()
        activity = Activity(self._process.pid)
        while self._process.poll() is None:
            activity.update()
            is_idle = activity.idle_s > IDLE_PATIENCE_S
            if is_idle or is_urgent() or time.monotonic() - start_s > END_PATIENCE_S:
                self._process.kill()
                self._process.wait()
                break
            time.sleep(POLL_PERIOD_S)
        return self._process.returncode


class Activity:
    """
    How long a process has used processors, and for how long it has not.

    Limits on these do not depend on the load of the machine, as limits on elapsed time do.

    Parameters
    ----------
    pid
        The process.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._changed_s = time.monotonic()
        self.cpu_s = 0.0
        """Processor time of all its threads together."""

    @property
    def idle_s(self) -> float:
        """Elapsed time until now in which `update` found no processor time used."""
        return time.monotonic() - self._changed_s

    def update(self) -> None:
        """Read the process's processor time."""
        if (cpu_s := cpu_time_s(self._pid)) > self.cpu_s:
            self.cpu_s, self._changed_s = cpu_s, time.monotonic()


def cpu_time_s(pid: int) -> float:
    """Return how long a process has used a processor, or 0 where that is not known."""
    try:
        text = pathlib.Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return 0.0
    # The name in parentheses may hold anything; user and system time are the 14th and 15th field.
    fields = text.rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f'signal {number}'
