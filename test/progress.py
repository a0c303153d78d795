"""Wait for processes while they make progress, independent of the speed of the machine."""

from __future__ import annotations

import os
import pathlib
import subprocess
import time

STALL_TIMEOUT_S = 90.0
"""A process that uses no processor time for this long is considered blocked."""
MAX_DURATION_S = 900.0
POLL_PERIOD_S = 0.2


def run_with_stall_timeout(command, **options):
    """Run a command like `subprocess.run`, with text output and a timeout on its progress."""
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
    """Wait for a process and return its output, like `Popen.communicate`."""
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
    """Wait for a process, discard its output, and return its exit status."""
    communicate_with_stall_timeout(process)
    return process.returncode


def descendant_pids(pid):
    """Return the process ids of all descendants of a process."""
    children = {}
    for other, fields in _all_processes():
        children.setdefault(int(fields[1]), []).append(other)
    descendants = []
    pending = [pid]
    while pending:
        pids = children.get(pending.pop(), [])
        descendants += pids
        pending += pids
    return descendants


def tree_cpu_time_s(pid):
    """Return the processor time of a process and its descendants in seconds."""
    tree = {pid, *descendant_pids(pid)}
    # User and system time, and those of children that have ended.
    ticks = sum(
        int(ticks)
        for other, fields in _all_processes()
        if other in tree
        for ticks in fields[11:15]
    )
    return ticks / os.sysconf('SC_CLK_TCK')


def _all_processes():
    """Yield the id of each process and the fields of its stat file from the third on."""
    for file in pathlib.Path('/proc').glob('[0-9]*/stat'):
        try:
            text = file.read_text()
        except OSError:  # The process has just ended.
            continue
        yield int(file.parent.name), text.rpartition(')')[2].split()
