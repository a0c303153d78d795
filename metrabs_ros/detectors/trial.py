"""
Trying a detector's network in a process of its own.

OpenVINO ends the process, allocates without limit or does not return for some networks that are
valid ONNX.  A process of its own shows this before the network is loaded here.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from metrabs_ros.child_process import Activity
from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import shown

LONGEST_CPU_S = 180.0
"""Of the processor, of all threads together, so that a busy machine does not count."""
LONGEST_IDLE_S = 60.0
LARGEST_MEMORY_BYTES = min(8 << 30, os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2)
POLL_S = 0.05
MESSAGE_CHARS = 600
_REFUSED = 3
_SCRIPT = """
import pathlib, sys
from metrabs_ros.detectors.onnx import OnnxDetector
try:
    OnnxDetector.untried(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
except ValueError as error:
    sys.stdout.buffer.write(str(error).encode())
    sys.exit(3)
"""


def run(model_file: pathlib.Path, threads: int) -> None:
    """
    Load a network and run it once, in a process of limited time and memory.

    Raises
    ------
    ValueError
        If the process refuses the network, crashes, or exceeds a limit.
    """
    command = [sys.executable, '-c', _SCRIPT, str(model_file.absolute()), str(threads)]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    # In memory, as there may be no disk to write to.
    with open(os.memfd_create('trial'), 'w+b') as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        try:
            excess = _excess(process)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        message = output.read(MESSAGE_CHARS * 4).decode('utf-8', 'replace')
    if excess:
        raise ValueError(f'detector {shown(model_file)} {excess} when it is loaded')
    if process.returncode == _REFUSED:
        raise ValueError(printable(message, MESSAGE_CHARS))
    if process.returncode < 0:
        raise ValueError(
            f'detector {shown(model_file)} makes OpenVINO crash (signal {-process.returncode})'
        )
    if process.returncode != 0:
        raise ValueError(
            f'detector {shown(model_file)} cannot be loaded: the process that tried it ended with '
            f'exit status {process.returncode}'
        )


def _excess(process: subprocess.Popen[bytes]) -> str:
    """Wait for a process; return which limit it exceeds, if it does."""
    activity = Activity(process.pid)
    while True:
        try:
            process.wait(POLL_S)
            return ''
        except subprocess.TimeoutExpired:
            pass
        activity.update()
        if activity.cpu_s > LONGEST_CPU_S:
            return f'takes more than {LONGEST_CPU_S:.0f} s of processor time'
        if activity.idle_s > LONGEST_IDLE_S:
            return f'does nothing for more than {LONGEST_IDLE_S:.0f} s'
        if _memory_bytes(process.pid) > LARGEST_MEMORY_BYTES:
            return f'takes more than {LARGEST_MEMORY_BYTES >> 20} MiB of memory'


def _memory_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 if it has ended."""
    try:
        pages = int(pathlib.Path(f'/proc/{pid}/statm').read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf('SC_PAGE_SIZE')
