#!/usr/bin/env python3
"""
Distinguish memory leaks from one-time allocations: repeat one load and print the memory.

    python test/endurance/memory.py compressed_images --batches 10 --size 400

With a leak, the memory grows by the same amount in each batch.  One-time allocations end after the
first batches.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import tempfile
import time

import malformed
import rclpy
from run import load, metrabs_parameters, photo, start, wait_for_start

SETTLING_S = 3.0
PERIOD_S = 0.02


def main() -> None:
    """Parse the arguments and print a line for each batch."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument('kind', choices=sorted(KINDS))
    parser.add_argument('--batches', type=int, default=10)
    parser.add_argument('--size', type=int, default=400)
    args = parser.parse_args()
    output = pathlib.Path(tempfile.mkdtemp(prefix='memory_'))
    rclpy.init()
    compressed = args.kind in ('compressed_images', 'detections')
    parameters = metrabs_parameters(output) if compressed else {'model': 'blazepose'}
    name = 'metrabs' if compressed else 'blazepose'
    subject = start(name, parameters, photo('street'), compressed, output, seed=0)
    load.spin([subject.robot])
    wait_for_start(subject)
    for batch in range(args.batches + 1):
        sample = subject.process.sample(is_active=True)
        print(
            f'{batch * args.size:6d} {args.kind}: {sample.rss_bytes / 2**20:.1f} MiB, '
            f'{sample.threads} threads, {sample.descriptors} descriptors',
            flush=True,
        )
        for _ in range(args.size):
            KINDS[args.kind](subject.robot)
        # Valid frames, so that all samples are taken in the same state.
        for _ in range(round(SETTLING_S * load.RATE_HZ)):
            subject.robot.send_frame()
            time.sleep(1 / load.RATE_HZ)
    subject.process.end()
    rclpy.try_shutdown()
    # The executor thread would crash when the interpreter is finalised.
    sys.stdout.flush()
    os._exit(0)


def _send_compressed_image(robot: load.Robot) -> None:
    robot.images.publish(malformed.compressed_image(robot.random))
    time.sleep(PERIOD_S)


def _send_detections(robot: load.Robot) -> None:
    at = robot.get_clock().now().to_msg()
    robot.boxes.publish(malformed.detections(robot.random, at))
    robot.send_image(at)
    time.sleep(PERIOD_S)


def _send_image(robot: load.Robot) -> None:
    robot.images.publish(malformed.image(robot.random))
    time.sleep(PERIOD_S)


def _cycle(robot: load.Robot) -> None:
    """Deactivate, clean up, configure and activate the node."""
    for number in (4, 2, 1, 3):
        robot.request_transition('', number)


KINDS = {
    'compressed_images': _send_compressed_image,
    'detections': _send_detections,
    'images': _send_image,
    'lifecycle_cycles': _cycle,
}


if __name__ == '__main__':
    main()
