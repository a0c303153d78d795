"""Child processes: start, termination with the parent, and activity monitoring."""

from __future__ import annotations

import ctypes
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence

POLL_PERIOD_S = 0.05
IDLE_TIMEOUT_S = 10.0
"""A terminating process that uses no processor time for this long is killed."""
END_TIMEOUT_S = 60.0
"""Maximum time from SIGTERM to SIGKILL."""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)
_PRCTL = getattr(_LIBC, 'prctl', None)


def end_with_parent() -> None:
    """
    Request that the kernel kills this process when its parent ends; for ``preexec_fn``.

    This also works if the parent is killed and cannot terminate its children itself.
    """
    if _PRCTL is not None:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL)


class ChildProcess:
    """
    A process that ends when this process ends.

    The child runs in a new session, so that Ctrl-C is sent only to this process.

    Parameters
    ----------
    name
        Name of the child in messages.
    arguments
        The command line.
    environ
        The environment variables.
    """

    def __init__(self, name: str, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        self.name = name
        parent = os.getpid()

        def end_with_creator() -> None:
            end_with_parent()
            # The parent may have ended before the call above.
            if os.getppid() != parent:
                os._exit(1)

        self._process = subprocess.Popen(
            arguments, env=environ, start_new_session=True, preexec_fn=end_with_creator
        )

    @property
    def status(self) -> int | None:
        """The exit status, the negative number of a signal, or None while it runs."""
        return self._process.poll()

    @property
    def status_text(self) -> str:
        """The exit status as a phrase for messages."""
        status = self.status
        if status is None:
            return f'{self.name} is running'
        if status < 0:
            return f'{self.name} was terminated by {_signal_name(-status)}'
        return f'{self.name} ended with exit status {status}'

    def end(self, is_urgent: Callable[[], bool] = lambda: False) -> int:
        """
        Terminate the process, kill it if it does not end, and return its exit status.

        The process may take longer while it uses processor time, because machines under load are
        slow.

        Parameters
        ----------
        is_urgent
            Returns whether to kill the process immediately.
        """
        if self._process.poll() is None:
            # After SIGINT, a process that is still importing would print a traceback.
            self._process.terminate()
        start_s = time.monotonic()
        activity = Activity(self._process.pid)
        while self._process.poll() is None:
            activity.update()
            is_idle = activity.idle_s > IDLE_TIMEOUT_S
            if is_idle or is_urgent() or time.monotonic() - start_s > END_TIMEOUT_S:
                self._process.kill()
                self._process.wait()
                break
            time.sleep(POLL_PERIOD_S)
        return self._process.returncode


class Activity:
    """
    Monitor of the processor time of a process.

    Unlike limits on elapsed time, limits on these values do not depend on the load of the machine.

    Parameters
    ----------
    pid
        Process id.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._changed_s = time.monotonic()
        self.cpu_s = 0.0
        """Processor time of all threads of the process, in seconds."""

    @property
    def idle_s(self) -> float:
        """Elapsed time since `update` last measured an increase of processor time."""
        return time.monotonic() - self._changed_s

    def update(self) -> None:
        """Read the processor time of the process."""
        if (cpu_s := cpu_time_s(self._pid)) > self.cpu_s:
            self.cpu_s, self._changed_s = cpu_s, time.monotonic()


def cpu_time_s(pid: int) -> float:
    """Return the processor time of a process in seconds, or 0 if it is not available."""
    try:
        text = pathlib.Path(f'/proc/{pid}/stat').read_text()
    except OSError:
        return 0.0
    # The program name in parentheses may contain any character.  User and system time are the
    # 14th and 15th field.
    fields = text.rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f'signal {number}'
