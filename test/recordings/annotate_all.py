"""Annotates bags with the paths from standard input; prints one JSON object per bag."""

from __future__ import annotations

import json
import pathlib
import re
import resource
import shutil
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

from known_people import KnownPeople

from metrabs_ros.recordings.annotate import annotate
from metrabs_ros.recordings.options import AnnotateOptions

LIMIT_BYTES = 3 * 2**30


def outcome_of(bag: pathlib.Path, results: pathlib.Path) -> dict[str, object]:
    """Annotate a bag; return its messages, the type of an unexpected exception, and costs."""
    messages: list[str] = []
    start_s, cpu_s = time.perf_counter(), time.process_time()
    try:
        options = AnnotateOptions(fov_degrees=60.0)
        summary = annotate(bag, results, options, KnownPeople((0, 0, 3000)), messages.append)
        messages += summary.lines()
        kind = ''
    except Exception as error:
        messages.append(str(error))
        kind = type(error).__name__ if not isinstance(error, ValueError) else ''
    shutil.rmtree(results, ignore_errors=True)
    return {
        'unexpected': kind,
        'messages': messages,
        'cpu_s': time.process_time() - cpu_s,
        'wall_s': time.perf_counter() - start_s,
        'peak_mib': peak_memory_mib(),
    }


def peak_memory_mib() -> int:
    """Return the peak resident memory of this process."""
    # ru_maxrss is not used: it includes the memory of the parent process before exec.
    status = pathlib.Path('/proc/self/status').read_text()
    return int(re.search(r'VmHWM:\s*(\d+) kB', status)[1]) // 1024


if __name__ == '__main__':
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    for line in sys.stdin:
        path = pathlib.Path(json.loads(line))
        print(json.dumps(outcome_of(path, path.parent / 'results')), flush=True)
