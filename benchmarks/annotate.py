"""
What annotating a recording costs beside the networks, and whether its memory stays flat.

Writes a bag of a video's frames and annotates it with BlazePose; one of large pictures likewise;
then one of many small pictures with a model that takes no time.

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


class Watched(KnownPeople):
    """People who take no time, while memory is watched."""

    def __init__(self, *places_mm):
        super().__init__(*places_mm)
        self.memory_bytes = []

    def find_people(self, image, camera, options):
        """Find them; every now and then forget what was seen."""
        if len(self.memory_bytes) % 100 == 0:
            self.seen.clear()
        self.memory_bytes.append(psutil.Process().memory_info().rss)
        return super().find_people(image, camera, options)


def frames_of(video, count):
    """Give so many of a video's frames, from the start again where it ends."""
    source = cv2.VideoCapture(str(video))
    for _ in range(count):
        is_there, image = source.read()
        if not is_there:
            source.set(cv2.CAP_PROP_POS_FRAMES, 0)
            _, image = source.read()
        yield image


def main():
    """Measure, and say what was measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--output', type=pathlib.Path)
    parser.add_argument('--frames', type=int, default=60, help='of the video')
    parser.add_argument('--small-frames', type=int, default=10_000)
    chosen = parser.parse_args()
    lines = [machine.describe()]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        model = metrabs_ros.load_model('blazepose')
        bag = write_bag(folder / 'video', frames_of(default_footage(), chosen.frames))
        model.detect_poses(next(frames_of(default_footage(), 1)))
        large = [cv2.resize(image, (1920, 1080)) for image in frames_of(default_footage(), 8)]
        bags = {'768 x 576': bag, '1920 x 1080': write_bag(folder / 'large', large)}
        for (size, source), follow in itertools.product(bags.items(), (False, True)):
            output = folder / f'{source.name}_{follow}'
            done = annotate(source, output, AnnotateOptions(follow=follow), model, print)
            beside_s = done.total_s - done.estimator_s
            lines.append(
                f'{size}, {done.frames} frames{", followed" if follow else ""}: '
                f'{done.frames / done.total_s:.2f} frames a second, '
                f'{done.total_s / done.estimator_s:.3f} of the time of the networks, '
                f'{1000 * beside_s / done.frames:.1f} ms a frame beside it'
            )
            print(lines[-1], flush=True)
        noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
        bag = write_bag(folder / 'small', itertools.repeat(noise, chosen.small_frames))
        watched = Watched((0, 0, 3000), (500, 0, 4000), (-500, 0, 4000))
        done = annotate(
            bag, folder / 'small_people', AnnotateOptions(csv='', parquet=''), watched, print
        )
        memory = watched.memory_bytes
        lines.append(
            f'{done.frames} frames of 160 x 120, three people, with tables: '
            f'{1000 * (done.total_s - done.estimator_s) / done.frames:.1f} ms a frame beside the '
            f'model; memory {memory[SETTLED_FRAMES] / MIB:.0f} MiB after {SETTLED_FRAMES} frames, '
            f'at most {max(memory[SETTLED_FRAMES:]) / MIB:.0f}, {memory[-1] / MIB:.0f} at the end'
        )
        print(lines[-1], flush=True)
    if chosen.output:
        chosen.output.write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
