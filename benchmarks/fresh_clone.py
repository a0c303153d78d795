"""Measure the time from a fresh clone to the first skeleton of the demo, and its frame rate."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import tempfile
import time

import machine

PROJECT = pathlib.Path(__file__).resolve().parents[1]
FIRST_FRAME_MESSAGE = 'the first frame was received'


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as scratch:
        start_s = time.monotonic()
        subprocess.run(['git', 'clone', '--quiet', PROJECT, 'clone'], cwd=scratch, check=True)
        process = subprocess.Popen(
            ['make', 'demo'],
            cwd=pathlib.Path(scratch) / 'clone',
            env={**os.environ, 'METRABS_ROS_CACHE': f'{scratch}/cache'},
            stdout=subprocess.PIPE,
            text=True,
        )
        first_s = None
        for line in process.stdout:
            if FIRST_FRAME_MESSAGE in line:
                first_s = time.monotonic() - start_s
        process.wait()
    print(machine.describe())
    print(
        f'from git clone, with an empty environment and cache, to the first skeletons: '
        f'{first_s:.0f} s'
        if first_s
        else 'the demo published no skeletons'
    )
    print(line.strip())


if __name__ == '__main__':
    sys.exit(main())
