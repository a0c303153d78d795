"""
Measure recall and time of detect_poses for 7 to 200 small people in one image.

The images consist of copies of a pedestrian of test/data/street.png, 88 pixels tall, with gaps of
30 pixels.  In addition to the whole call, the passes of the detector are measured: those of all
images, and the pass at 1024 pixels, which only images with small people need.

    python benchmarks/crowd.py --output benchmarks/results/crowd.txt
"""

from __future__ import annotations

import argparse
import pathlib
import time

import cv2
import machine
import numpy as np

import metrabs_ros
from metrabs_ros.blazepose.estimator import LARGE_SIDE_PX
from metrabs_ros.loading import load_movenet
from metrabs_ros.movenet.detector import BOTH_SIDES_PX

STREET = pathlib.Path(__file__).parents[1] / 'test' / 'data' / 'street.png'
ROWS_AND_COLUMNS = ((1, 7), (5, 5), (5, 10), (10, 10), (10, 20))
GAP_PX = 30


def crowd(street, rows, columns):
    """Return an image of copies of a pedestrian, and the width and height of its cells."""
    person = street[212:312, 325:377]
    height, width = person.shape[:2]
    cell = np.empty((height + GAP_PX, width + GAP_PX, 3), np.uint8)
    cell[:] = np.median(person, axis=(0, 1))
    start = GAP_PX // 2
    cell[start : start + height, start : start + width] = person
    return np.tile(cell, (rows, columns, 1)), cell.shape[1::-1]


def median_ms(function, repetitions):
    """Return the median time of a call in milliseconds, after one call."""
    function()
    times_s = []
    for _ in range(repetitions):
        start_s = time.perf_counter()
        function()
        times_s.append(time.perf_counter() - start_s)
    return 1000 * np.median(times_s)


def main():
    """Measure, print and optionally write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--output', type=pathlib.Path)
    parser.add_argument('--repetitions', type=int, default=5)
    args = parser.parse_args()
    street = cv2.cvtColor(cv2.imread(str(STREET)), cv2.COLOR_BGR2RGB)
    model, movenet = metrabs_ros.load_model('blazepose'), load_movenet()
    lines = [machine.describe()]
    for rows, columns in ROWS_AND_COLUMNS:
        image, cell_px = crowd(street, rows, columns)
        hips_px = model.detect_poses(image)['poses2d'][:, 23:25].mean(axis=1)
        found = len(np.unique(np.floor(hips_px / cell_px), axis=0))
        whole_ms, usual_ms, large_ms = (
            median_ms(function, args.repetitions)
            for function in (
                lambda image=image: model.detect_poses(image),
                lambda image=image: movenet(image, sides_px=BOTH_SIDES_PX),
                lambda image=image: movenet(image, sides_px=[LARGE_SIDE_PX]),
            )
        )
        lines.append(
            f'{rows * columns:3d} people in {image.shape[1]} x {image.shape[0]}: '
            f'{found} found, {len(hips_px) - found} twice, {whole_ms:.0f} ms, of which detector '
            f'{usual_ms:.0f} ms, at {LARGE_SIDE_PX} px {large_ms:.0f} ms'
        )
    print('\n'.join(lines))
    if args.output:
        args.output.write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
