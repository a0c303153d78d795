"""
Measure recall, false detections and time of person detection in photographs and video frames.

The people were labelled manually; detection_truth.json contains their boxes and the sources of
the images.  The images are not part of the repository.  Give a folder with them, named as in
detection_truth.json, in PNG format:

    python benchmarks/detection.py IMAGES --output benchmarks/results/detection.txt

A detection is correct if its IoU with a person is at least 0.3.  Further detections of a person
or of a part of one are duplicates, which are counted as false detections.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import time

import cv2
import machine
import numpy as np

import metrabs_ros
from metrabs_ros.box_overlap import box_containment, box_iou
from metrabs_ros.movenet.detector import THRESHOLD, MoveNetDetector
from metrabs_ros.movenet.network import MoveNet
from metrabs_ros.weights.bundled import bundled_network

TRUTH = pathlib.Path(__file__).with_name('detection_truth.json')
SIDES_PX = ((256,), (512,), (256, 512), (512, 768), (256, 768))
THRESHOLDS = (0.15, 0.2, 0.3, 0.4)
MODEL_THRESHOLDS = (0.2, 0.25, 0.3, THRESHOLD, 0.4)
MIN_IOU, MIN_CONTAINMENT = 0.3, 0.7


@dataclasses.dataclass
class Counts:
    """Counts over images."""

    name: str
    images: int = 0
    empty_images: int = 0
    people: int = 0
    found: int = 0
    false: int = 0
    duplicates: int = 0
    false_in_empty: int = 0
    cpu_s: list[float] = dataclasses.field(default_factory=list)
    wall_s: list[float] = dataclasses.field(default_factory=list)
    remarks: list[str] = dataclasses.field(default_factory=list)

    def add(self, name, boxes_px, truth, seconds):
        """Add the boxes [N, 4] that were detected in an image, in descending order of score."""
        people_px, optional_px = truth
        found, rest = match(boxes_px, people_px)
        _, others = match(boxes_px[rest], optional_px, once=False)
        false_px = boxes_px[rest][others]
        everyone_px = np.concatenate([people_px, optional_px])
        inside = box_containment(false_px[:, None], everyone_px[None])
        same = box_iou(false_px[:, None], everyone_px[None])
        is_duplicate = ((inside > MIN_CONTAINMENT) | (same > MIN_IOU)).any(axis=1)
        self.images += 1
        self.people += len(people_px)
        self.found += len(found)
        self.false += len(false_px)
        self.duplicates += int(is_duplicate.sum())
        if not len(everyone_px):
            self.empty_images += 1
            self.false_in_empty += len(false_px)
        self.cpu_s.append(seconds[0])
        self.wall_s.append(seconds[1])
        missed_px = np.delete(people_px, found, axis=0)
        for kind, these_px in (('missed', missed_px), ('false', false_px)):
            self.remarks += [
                f'{name}: {kind} {np.rint(box).astype(int).tolist()}' for box in these_px
            ]

    def __str__(self) -> str:
        """Return one line."""
        return (
            f'{self.name:34s} recall {100 * self.found / max(self.people, 1):5.1f} % of '
            f'{self.people}, false detections per image {self.false / self.images:.3f} '
            f'({self.false} in {self.images}, {self.duplicates} of them duplicates), without '
            f'people {self.false_in_empty} in {self.empty_images}, median '
            f'{1000 * np.median(self.cpu_s):.0f} ms of processor time, '
            f'{1000 * np.median(self.wall_s):.0f} ms'
        )


def match(boxes_px, people_px, once=True):
    """
    Assign boxes to people, the largest IoU first.

    Returns
    -------
    The indices of the people with a box, and of the boxes without a person.
    """
    iou = box_iou(boxes_px[:, None], people_px[None])
    people, boxes = [], []
    for i in np.argsort(-iou, axis=None):
        box, person = np.unravel_index(i, iou.shape)
        if iou[box, person] < MIN_IOU:
            break
        if box not in boxes and not (once and person in people):
            people.append(int(person))
            boxes.append(int(box))
    return people, np.setdiff1d(np.arange(len(boxes_px)), boxes)


def boxes_of(permille, image):
    """Return boxes [N, 4], left, top, width, height in pixels, of corners in thousandths."""
    corners = np.array(permille, np.float64).reshape(-1, 4) / 1000
    corners *= np.tile([image.shape[1], image.shape[0]], 2)
    return np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)


def timed(function, *args, **kwargs):
    """Return the result, and the processor time and the time in seconds."""
    start = np.array([time.process_time(), time.perf_counter()])
    result = function(*args, **kwargs)
    return result, np.array([time.process_time(), time.perf_counter()]) - start


def main():
    """Measure, print and optionally write the results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('images', type=pathlib.Path, help='folder with the images')
    parser.add_argument('--output', type=pathlib.Path)
    parser.add_argument('--only', default='', help='start of the names of the images to use')
    parser.add_argument(
        '--remarks', action='store_true', help='list missed people and false detections'
    )
    parser.add_argument('--model-only', action='store_true', help='skip MoveNet alone')
    args = parser.parse_args()
    truths = json.loads(TRUTH.read_text())['images']
    detector, model = (
        MoveNetDetector(MoveNet(bundled_network('movenet_multipose.xml'))),
        metrabs_ros.load_model('blazepose'),
    )
    variants = {
        (sides, threshold): Counts(
            f'MoveNet, {"and ".join(f"{s} " for s in sides)}px, {threshold}'
        )
        for sides in (() if args.model_only else SIDES_PX)
        for threshold in THRESHOLDS
    }
    variants |= {
        threshold: Counts(f'detect_poses, threshold {threshold}') for threshold in MODEL_THRESHOLDS
    }
    for name in sorted(truths):
        if not name.startswith(args.only):
            continue
        image = cv2.cvtColor(cv2.imread(str(args.images / f'{name}.png')), cv2.COLOR_BGR2RGB)
        truth = [boxes_of(truths[name][kind], image) for kind in ('people', 'optional')]
        if not args.model_only:
            for sides in SIDES_PX:
                people, seconds = timed(detector, image, THRESHOLDS[0], sides_px=sides)
                for threshold in THRESHOLDS:
                    boxes_px = people.boxes_px[people.scores >= threshold]
                    variants[sides, threshold].add(name, boxes_px, truth, seconds)
        for threshold in MODEL_THRESHOLDS:
            people, seconds = timed(model.detect_poses, image, detector_threshold=threshold)
            variants[threshold].add(name, people['boxes'][:, :4], truth, seconds)
    lines = [machine.describe(), *(str(counts) for counts in variants.values())]
    if args.remarks:
        for counts in variants.values():
            lines += ['', counts.name, *counts.remarks]
    print('\n'.join(lines))
    if args.output:
        args.output.write_text('\n'.join(lines) + '\n')


if __name__ == '__main__':
    main()
