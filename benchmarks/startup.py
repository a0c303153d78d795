"""
Measure the start-up time of models, without and with a filled engine cache.

Each start is a separate process, from the import to the first poses.
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import machine
import subjects

RESULTS = pathlib.Path(__file__).parent / 'results' / 'startup.txt'
START = """
import json, sys, time
start_s = time.perf_counter()
import numpy as np
import metrabs_ros
model = metrabs_ros.load_model(sys.argv[1], sys.argv[2])
loaded_s = time.perf_counter() - start_s
model.estimate_poses(np.zeros((480, 640, 3), np.uint8), [[200, 100, 200, 300]])
print(json.dumps([loaded_s, time.perf_counter() - start_s]))
"""


def start(model: str, engine: str, cache: str) -> tuple[float, float]:
    """Return the seconds until a model is loaded, and until the first poses are estimated."""
    result = subprocess.run(
        [sys.executable, '-c', START, model, engine],
        env={**os.environ, 'METRABS_ROS_CACHE': cache},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded_s, first_s = json.loads(result.stdout.splitlines()[-1])
    return loaded_s, first_s


def main() -> None:
    """Measure, print and write the results."""
    lines = [machine.describe()]
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as cache:
        subjects.write_checkpoint(folder, 's_centered')
        for name, model, engine in (
            ('EfficientNetV2-S', folder, 'openvino'),
            ('EfficientNetV2-S', folder, 'torch'),
            ('BlazePose', 'blazepose', 'openvino'),
        ):
            for which in ('first', 'later', 'later'):
                loaded_s, first_s = start(model, engine, cache)
                lines.append(
                    f'{name}, {engine}, {which} start: loaded after {loaded_s:.1f} s, first poses '
                    f'after {first_s:.1f} s'
                )
                print(lines[-1], flush=True)
    RESULTS.write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
