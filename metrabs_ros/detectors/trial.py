"""
Trial run of a detection network in a separate process.

For some valid ONNX files OpenVINO terminates the process, allocates memory without limit or does
not return.  The trial detects this before the network is loaded in the main process.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

from metrabs_ros.child_process import Activity
from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import shown

MAX_CPU_S = 180.0
"""Limit of the processor time of all threads; independent of the load of the machine."""
MAX_IDLE_S = 60.0
MAX_MEMORY_BYTES = min(8 << 30, os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2)
POLL_S = 0.05
MAX_MESSAGE_CHARS = 600
_REJECTED = 3
_SCRIPT = """
import pathlib, sys
from metrabs_ros.detectors.onnx import OnnxDetector
try:
    OnnxDetector.load_unchecked(pathlib.Path(sys.argv[1]), int(sys.argv[2]))
except ValueError as error:
    sys.stdout.buffer.write(str(error).encode())
    sys.exit(3)
"""


def run(model_file: pathlib.Path, threads: int) -> None:
    """
    Load a network and run it once, in a process with limited time and memory.

    Raises
    ------
    ValueError
        If the network is invalid, the process crashes, or a limit is exceeded.
    """
    command = [sys.executable, '-c', _SCRIPT, str(model_file.absolute()), str(threads)]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    # A file in memory, because the disk may be read-only.
    with open(os.memfd_create('trial'), 'w+b') as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        try:
            problem = _exceeded_limit(process)
        finally:
            process.kill()
            process.wait()
        output.seek(0)
        message = output.read(MAX_MESSAGE_CHARS * 4).decode('utf-8', 'replace')
    if problem:
        raise ValueError(f'detector {shown(model_file)} {problem} when it is loaded')
    if process.returncode == _REJECTED:
        raise ValueError(printable(message, MAX_MESSAGE_CHARS))
    if process.returncode < 0:
        raise ValueError(
            f'detector {shown(model_file)} makes OpenVINO crash (signal {-process.returncode})'
        )
    if process.returncode != 0:
        raise ValueError(
            f'detector {shown(model_file)} cannot be loaded: the trial process ended with exit '
            f'status {process.returncode}'
        )


def _exceeded_limit(process: subprocess.Popen[bytes]) -> str:
    """Wait for a process; return a description of the limit it exceeds, or an empty string."""
    activity = Activity(process.pid)
    while True:
        try:
            process.wait(POLL_S)
            return ''
        except subprocess.TimeoutExpired:
            pass
        activity.update()
        if activity.cpu_s > MAX_CPU_S:
            return f'takes more than {MAX_CPU_S:.0f} s of processor time'
        if activity.idle_s > MAX_IDLE_S:
            return f'is idle for more than {MAX_IDLE_S:.0f} s'
        if _memory_bytes(process.pid) > MAX_MEMORY_BYTES:
            return f'takes more than {MAX_MEMORY_BYTES >> 20} MiB of memory'


def _memory_bytes(pid: int) -> int:
    """Return the resident memory of a process; 0 if it has ended."""
    try:
        pages = int(pathlib.Path(f'/proc/{pid}/statm').read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf('SC_PAGE_SIZE')
