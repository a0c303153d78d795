"""Waiting for processes as long as they make progress, on a machine of any speed."""

from __future__ import annotations

import os
import pathlib
import subprocess
import time

STALL_TIMEOUT_S = 90.0
"""A process that uses no processor for so long is stuck."""
MAX_DURATION_S = 900.0
POLL_PERIOD_S = 0.2


def run_with_stall_timeout(command, **options):
    """Run a command as `subprocess.run` does, with its output as text."""
    with subprocess.Popen(
        [str(part) for part in command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    ) as process:
        stdout, stderr = communicate_with_stall_timeout(process)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def communicate_with_stall_timeout(process):
    """Return the output of a process once it has ended, as `Popen.communicate` does."""
    start_s = changed_s = time.monotonic()
    used_s = 0.0
    while True:
        try:
            return process.communicate(timeout=POLL_PERIOD_S)
        except subprocess.TimeoutExpired:
            now_s = time.monotonic()
        newly_s = tree_cpu_time_s(process.pid)
        if newly_s != used_s:
            used_s, changed_s = newly_s, now_s
        if now_s - changed_s > STALL_TIMEOUT_S or now_s - start_s > MAX_DURATION_S:
            process.kill()
            stdout, stderr = process.communicate()
            raise AssertionError(
                f'{process.args} does not end: {used_s:.1f} s of CPU time in '
                f'{now_s - start_s:.0f} s, output:\n{stdout}\n{stderr or ""}'
            )


def wait_for_exit(process):
    """Return the exit status of a process whose output nobody reads, once it has ended."""
    communicate_with_stall_timeout(process)
    return process.returncode


def descendant_pids(pid):
    """Return the ids of a process's children, their children and so on."""
    children = {}
    for other, fields in _all_processes():
        children.setdefault(int(fields[1]), []).append(other)
    found = []
    waiting = [pid]
    while waiting:
        of_one = children.get(waiting.pop(), [])
        found += of_one
        waiting += of_one
    return found


def tree_cpu_time_s(pid):
    """Return how long a process and those below it have used a processor."""
    tree = {pid, *descendant_pids(pid)}
    # User and system time, and the same of children that have ended.
    ticks = sum(
        int(ticks)
        for other, fields in _all_processes()
        if other in tree
        for ticks in fields[11:15]
    )
    return ticks / os.sysconf('SC_CLK_TCK')


def _all_processes():
    """Give each process's id and the fields of its stat from the third on."""
    for file in pathlib.Path('/proc').glob('[0-9]*/stat'):
        try:
            text = file.read_text()
        except OSError:  # it has just ended
            continue
        yield int(file.parent.name), text.rpartition(')')[2].split()
