"""A process whose interpreter is blocked ends; others are not affected."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, sys, time
from metrabs_ros.node.watchdog import interpreter_watchdog

with interpreter_watchdog(timeout_s=float(sys.argv[2])):
    if sys.argv[1] == 'locked':
        time.sleep(0.5)
        # Unlike the functions of CDLL, those of PyDLL keep the interpreter locked.
        ctypes.PyDLL(None).sleep(60)
    else:
        time.sleep(2)
print('finished')
time.sleep(float(sys.argv[2]))
"""


@pytest.mark.parametrize(('case', 'status'), [('locked', 1), ('unlocked', 0)])
def test_a_process_ends_only_if_the_interpreter_is_locked(case, status):
    done = subprocess.run(
        [sys.executable, '-c', SCRIPT, case, '1'], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == status
    if status:
        assert 'Timeout' in done.stderr
        assert 'line 9 in <module>' in done.stderr
    else:
        assert done.stdout == 'finished\n'
