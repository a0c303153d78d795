"""
Handlers for signals that arrive while a program imports its modules.

Imports take seconds, and the default handler of SIGINT prints a traceback.  Programs call
`exit_on_signals` before large imports, and `restore_defaults` when they can shut down in order.
This module imports only small modules, so that the handlers are in place early.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Mapping
from types import FrameType

NODE_STATUSES = {signal.SIGINT: 0, signal.SIGTERM: 0}
"""Exit statuses of nodes, the same as after a signal to a running node."""
COMMAND_STATUSES = {signal.SIGINT: 128 + signal.SIGINT}
"""Exit statuses of the command line, as in a shell.  SIGTERM needs no handler."""


class _Exit:
    """Signal handler that ends the process immediately."""

    def __init__(self, status: int) -> None:
        self._status = status

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        # A SystemExit could be caught or printed by the module that is being imported.
        os._exit(self._status)


def exit_on_signals(statuses: Mapping[signal.Signals, int]) -> None:
    """
    Install handlers that end the process immediately and without a message.

    Signals that are ignored at the start of the process, for example SIGINT under ``nohup``, stay
    ignored.  Only the main thread can install handlers; in other threads this has no effect.

    Parameters
    ----------
    statuses
        Exit status for each signal.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    for number, status in statuses.items():
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _Exit(status))


def restore_defaults() -> None:
    """Replace the handlers of `exit_on_signals` by Python's default handlers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if isinstance(signal.getsignal(number), _Exit):
            is_interrupt = number == signal.SIGINT
            signal.signal(number, signal.default_int_handler if is_interrupt else signal.SIG_DFL)
