"""Description of the machine, for the results."""

from __future__ import annotations

import os
import pathlib
import platform


def describe() -> str:
    """Return the processor, the number of cores and the version of Python."""
    processor = platform.processor()
    for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
        if line.startswith('model name'):
            processor = line.split(':')[1].strip()
            break
    return f'{processor}, {os.cpu_count()} cores, Python {platform.python_version()}'


def supports_bf16() -> bool:
    """Return whether the processor has bfloat16 instructions."""
    return 'avx512_bf16' in pathlib.Path('/proc/cpuinfo').read_text()
