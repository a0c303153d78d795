"""Watchdog that ends the process if the interpreter stops, so that launch can restart it."""

from __future__ import annotations

import contextlib
import faulthandler
import threading
from collections.abc import Iterator

TIMEOUT_S = 120.0
"""
Maximum time for which no Python code runs.

Loading a network can hold the interpreter lock for some seconds on a loaded machine.
"""
STDERR = 2


@contextlib.contextmanager
def interpreter_watchdog(timeout_s: float = TIMEOUT_S) -> Iterator[None]:
    """
    End the process with status 1 if no Python code runs for some time.

    rclpy publishes with the interpreter locked.  In Fast DDS (2.14.5 and others), a publisher
    never returns from that call if a subscriber on the same machine was killed while it read from
    the shared memory: `get_and_remove_blocked_processing` locks the same mutex twice.  No code of
    the node can run then.  faulthandler waits in a thread that does not need the interpreter; it
    prints the stacks of all threads to stderr.

    Parameters
    ----------
    timeout_s
        Time without Python code, in seconds.  Time in which the process is suspended counts.
    """
    stopped = threading.Event()

    def postpone() -> None:
        while not stopped.wait(timeout_s / 10):
            faulthandler.dump_traceback_later(timeout_s, exit=True, file=STDERR)
        faulthandler.cancel_dump_traceback_later()

    thread = threading.Thread(target=postpone, name='watchdog', daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join()
