"""The command line: metrabs_ros demo | view | annotate | report | calibrate | fetch | ..."""

from __future__ import annotations

from metrabs_ros import startup_signals

if __name__ == '__main__':
    # The handlers must be in place before the imports below, which take seconds.
    startup_signals.exit_on_signals(startup_signals.COMMAND_STATUSES)

import argparse
import contextlib
import importlib
import logging
import os
import sys

from metrabs_ros.commands import (
    annotate,
    build_engine,
    calibrate,
    convert_skeleton,
    demo,
    export,
    fetch,
    fit_joints,
    fit_skeletons,
    report,
    view,
)
from metrabs_ros.commands.errors import INTERRUPTED_STATUS, print_error
from metrabs_ros.demo_video import FootageError
from metrabs_ros.foreign_text import escape_output
from metrabs_ros.weights.store import WeightsError

COMMANDS = (
    *(demo, view, annotate, report, calibrate),
    *(convert_skeleton, fit_joints, fit_skeletons, fetch, build_engine, export),
)
"""The commands in the order of the help."""
REPORTED_ERRORS = (WeightsError, FootageError, ValueError, ImportError, OSError)
"""Errors that are printed without a traceback."""


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run the command and return the exit status."""
    _open_closed_streams()
    escape_output()
    logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)
    # Without this, logging prints its own errors after stdout is closed, for example by `| head`.
    logging.raiseExceptions = False
    args = _parser().parse_args(arguments)
    try:
        # An import can swallow the KeyboardInterrupt that the default handler of SIGINT raises.
        # The command itself explains which packages are missing.
        with contextlib.suppress(ImportError):
            importlib.import_module(args.module)
            for import_package in args.imports:
                import_package()
        startup_signals.restore_defaults()
        status: int = args.run(args)
    except REPORTED_ERRORS as error:
        return print_error(error)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return INTERRUPTED_STATUS
    return status


def _open_closed_streams() -> None:
    """
    Open standard streams that are closed, for example by ``2>&-``, to discard what is written.

    Otherwise an output file could get the descriptor 2, and the messages of C libraries.
    """
    for descriptor, name, mode in ((0, 'stdin', 'r'), (1, 'stdout', 'w'), (2, 'stderr', 'w')):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free descriptor is used.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
            setattr(sys, name, open(descriptor, mode, closefd=False))  # noqa: SIM115


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='metrabs_ros', description='Absolute 3D human poses.')
    # The module that a command imports first, and functions that import packages; commands that
    # need others name them.
    parser.set_defaults(module='metrabs_ros', imports=())
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


if __name__ == '__main__':
    sys.exit(main())
