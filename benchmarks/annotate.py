"""
Measure the overhead of annotate in addition to the networks, and its memory over time.

A bag of video frames and a bag of large images are annotated with BlazePose.  A bag of many small
images is annotated with a model that needs no computation.

    python benchmarks/annotate.py --output benchmarks/results/annotate.txt
"""

from __future__ import annotations

import argparse
import itertools
import pathlib
import sys
import tempfile

import cv2
import machine
import numpy as np
import psutil

import metrabs_ros
from metrabs_ros.demo_video import default_footage
from metrabs_ros.recordings.annotate import annotate
from metrabs_ros.recordings.options import AnnotateOptions

sys.path.append(str(pathlib.Path(__file__).parents[1] / 'test'))

from known_people import KnownPeople
from recorded_bags import write_bag

MIB = 2**20
SETTLED_FRAMES = 500
"""Number of frames after which the memory should not increase."""


class MemoryRecordingPeople(KnownPeople):
    """A model with constant results that records the memory of the process."""

    def __init__(self, *places_mm):
        super().__init__(*places_mm)
        self.memory_bytes = []

    def poses_of(self, view, options):
        """Return the people; clear the list of calls periodically, so that it does not grow."""
        if len(self.memory_bytes) % 100 == 0:
            self.seen.clear()
        self.memory_bytes.append(psutil.Process().memory_info().rss)
        return super().poses_of(view, options)


def frames_of(video, count):
    """Yield a number of video frames; the video is repeated if it is shorter."""
    source = cv2.VideoCapture(str(video))
    for _ in range(count):
        has_frame, image = source.read()
        if not has_frame:
            source.set(cv2.CAP_PROP_POS_FRAMES, 0)
            _, image = source.read()
        yield image


def main():
    """Measure, print and optionally write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--output', type=pathlib.Path)
    parser.add_argument('--frames', type=int, default=60, help='number of video frames')
    parser.add_argument('--small-frames', type=int, default=10_000, help='number of small images')
    args = parser.parse_args()
    lines = [machine.describe()]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model = metrabs_ros.load_model('blazepose')
        bag = write_bag(folder / 'video', frames_of(default_footage(), args.frames))
        model.detect_poses(next(frames_of(default_footage(), 1)))
        large = [cv2.resize(image, (1920, 1080)) for image in frames_of(default_footage(), 8)]
        bags = {'768 x 576': bag, '1920 x 1080': write_bag(folder / 'large', large)}
        for (size, source), follow in itertools.product(bags.items(), (False, True)):
            output = folder / f'{source.name}_{follow}'
            summary = annotate(source, output, AnnotateOptions(follow=follow), model, print)
            overhead_s = summary.total_s - summary.estimator_s
            lines.append(
                f'{size}, {summary.frames} frames{", followed" if follow else ""}: '
                f'{summary.frames / summary.total_s:.2f} frames per second, total time '
                f'{summary.total_s / summary.estimator_s:.3f} times the time of the networks, '
                f'overhead {1000 * overhead_s / summary.frames:.1f} ms per frame'
            )
            print(lines[-1], flush=True)
        noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
        bag = write_bag(folder / 'small', itertools.repeat(noise, args.small_frames))
        known_people = MemoryRecordingPeople((0, 0, 3000), (500, 0, 4000), (-500, 0, 4000))
        options = AnnotateOptions(csv='', parquet='')
        summary = annotate(bag, folder / 'small_people', options, known_people, print)
        overhead_s = summary.total_s - summary.estimator_s
        memory = known_people.memory_bytes
        lines.append(
            f'{summary.frames} frames of 160 x 120, three people, with tables: overhead '
            f'{1000 * overhead_s / summary.frames:.1f} ms per frame; '
            f'memory {memory[SETTLED_FRAMES] / MIB:.0f} MiB after {SETTLED_FRAMES} frames, '
            f'maximum {max(memory[SETTLED_FRAMES:]) / MIB:.0f}, {memory[-1] / MIB:.0f} at the end'
        )
        print(lines[-1], flush=True)
    if args.output:
        args.output.write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
