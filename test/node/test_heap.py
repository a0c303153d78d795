from __future__ import annotations

import re
import subprocess
import sys

import pytest

from metrabs_ros.node.heap import LIBC

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

pytestmark = pytest.mark.skipif(not hasattr(LIBC, 'malloc_info'), reason='not glibc')


@pytest.mark.parametrize(('choice', 'max_arenas'), [('limited', 2), ('default', 100)])
def test_threads_share_a_limited_number_of_arenas(choice, max_arenas):
    output = subprocess.run(
        [sys.executable, '-c', COUNT_ARENAS, choice], capture_output=True, text=True, check=True
    ).stdout
    arenas = len(re.findall('<heap nr=', output))

    assert arenas <= max_arenas
    assert (arenas > 2) == (choice == 'default')
