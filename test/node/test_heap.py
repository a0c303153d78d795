from __future__ import annotations

import pathlib
import re
import subprocess
import sys

import pytest

from metrabs_ros.node.heap import LIBC

ROOT = pathlib.Path(__file__).parents[2]

COUNT_ARENAS = """
import ctypes, sys, threading
from metrabs_ros.node import heap

if sys.argv[1] == 'limited':
    heap.limit_arenas()
barrier = threading.Barrier(6)

def allocate():
    barrier.wait()
    pieces = [heap.LIBC.malloc(1000) for _ in range(1000)]
    barrier.wait()

threads = [threading.Thread(target=allocate) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
heap.LIBC.malloc_info(0, ctypes.c_void_p.in_dll(heap.LIBC, 'stdout'))
heap.LIBC.fflush(None)
"""

COUNT_ARENAS_OF_NODE = """
import ctypes, os, runpy, sys

exit_process = os._exit

def count_arenas(status):
    libc = ctypes.CDLL(None)
    libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, 'stdout'))
    libc.fflush(None)
    exit_process(status)

os._exit = count_arenas
# A node that does not start.
sys.argv[1:] = [*sys.argv[1:], '--ros-args', '-p', 'cameras:=[a, a]']
runpy.run_path(sys.argv.pop(1), run_name='__main__')
"""

pytestmark = pytest.mark.skipif(not hasattr(LIBC, 'malloc_info'), reason='not glibc')


@pytest.mark.parametrize(('choice', 'max_arenas'), [('limited', 2), ('default', 100)])
def test_threads_share_a_limited_number_of_arenas(choice, max_arenas):
    output = subprocess.run(
        [sys.executable, '-c', COUNT_ARENAS, choice], capture_output=True, text=True, check=True
    ).stdout
    arenas = len(re.findall('<heap nr=', output))

    assert arenas <= max_arenas
    assert (arenas > 2) == (choice == 'default')


@pytest.mark.parametrize(
    'script',
    [
        'scripts/pose_node',
        'scripts/fusion_node',
        'metrabs_ros/node/pose_node.py',
        'metrabs_ros/node/fusion_node.py',
    ],
)
def test_arenas_of_nodes_are_limited_before_imports_start_threads(script):
    result = subprocess.run(
        [sys.executable, '-c', COUNT_ARENAS_OF_NODE, ROOT / script], capture_output=True, text=True
    )
    assert 'each camera exactly once' in result.stderr
    assert 1 <= len(re.findall('<heap nr=', result.stdout)) <= 2
