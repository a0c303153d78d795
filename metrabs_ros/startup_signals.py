"""
Signals that arrive while modules are still being imported.

Imports take seconds, and Python's own handler of SIGINT prints a traceback there.  Programs call
`exit_on_signals` before their large imports, and `restore_defaults` when they can end in order.
Only small modules are imported here, so that the handlers are in place early.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from types import FrameType

NODE_STATUSES = {signal.SIGINT: 0, signal.SIGTERM: 0}
"""Exit statuses of nodes: the same as after a signal to a running node."""
COMMAND_STATUSES = {signal.SIGINT: 128 + signal.SIGINT}
"""Exit statuses of the command line, as in a shell; SIGTERM ends it without a handler."""


class _Exit:
    """Signal handler that ends the process at once."""

    def __init__(self, status: int) -> None:
        self._status = status

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        # Not SystemExit: code that is being imported may catch it or print it.
        os._exit(self._status)


def exit_on_signals(statuses: Mapping[signal.Signals, int]) -> None:
    """
    Let signals end the process at once, without a message.

    A signal that the process was started to ignore, for example SIGINT under ``nohup``, stays
    ignored.  Only the main thread can set handlers; in others, this does nothing.

    Parameters
    ----------
    statuses
        The exit status for each signal.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number, status in statuses.items():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _Exit(status))


def restore_defaults() -> None:
    """Give the signals of `exit_on_signals` back the handlers that Python starts with."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if isinstance(signal.getsignal(number), _Exit):
            is_interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)
