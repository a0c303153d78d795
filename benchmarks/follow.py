"""
Measure the speed of tracking without ROS.

The demo video is processed with two schedules of full-image detection, and the numbers and sizes
of people are reported.  Photographs are processed as constant streams.
"""

from __future__ import annotations

import pathlib
import sys
import time

import cv2
import machine
import numpy as np

import metrabs_ros
from metrabs_ros.camera import Camera
from metrabs_ros.demo_video import default_footage
from metrabs_ros.options import View
from metrabs_ros.tracking.person_tracker import PersonTracker
from metrabs_ros.tracking.timed_view import TimedView

DATA = pathlib.Path(__file__).parents[1] / 'test' / 'data'
STILLS = {'office': (640, 480), 'street': (1920, 1080)}
STILL_FRAMES, WARM_UP = 100, 20
RATE_HZ = 10.0
BUDGETS = {0: 'default detection interval', 1: 'full-image detection in each frame'}


def new_tracker(detect_interval: int = 0) -> PersonTracker:
    """Return a tracker without tracks."""
    model = metrabs_ros.load_model('blazepose')
    return PersonTracker(model, detect_interval=detect_interval)


def follow_still(name: str, size: tuple[int, int]) -> None:
    """Measure with a photograph that is resized to `size`, and print the result."""
    image = cv2.resize(
        cv2.cvtColor(cv2.imread(str(DATA / f'{name}.png')), cv2.COLOR_BGR2RGB), size
    )
    tracker, camera = new_tracker(), Camera.from_fov(55, image.shape)
    frame_s, counts = [], []
    for _ in range(STILL_FRAMES + WARM_UP):
        start_s = time.perf_counter()
        (people,) = tracker.process([TimedView(View(image, camera), start_s)])
        counts.append(len(people))
        frame_s.append(time.perf_counter() - start_s)
    print(
        f'{name} at {size[0]} x {size[1]}: {1 / np.mean(frame_s[WARM_UP:]):.1f} frames per '
        f'second, {np.mean(counts[WARM_UP:]):.1f} people'
    )


def follow_video(detect_interval: int, frames: int) -> None:
    """Measure on the demo's video, and print."""
    tracker = new_tracker(detect_interval)
    video = cv2.VideoCapture(str(default_footage()))
    frame_ms, counts, deepest_mm, tallest_mm, ids = [], [], 0.0, 0.0, set()
    for i in range(frames):
        has_frame, image = video.read()
        if not has_frame:
            break
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        camera = Camera.from_fov(55, rgb.shape)
        start_s = time.perf_counter()
        (people,) = tracker.process([TimedView(View(rgb, camera), i / RATE_HZ)])
        frame_ms.append(1000 * (time.perf_counter() - start_s))
        counts.append(len(people))
        ids |= set(people.ids.tolist())
        deepest_mm = max(deepest_mm, people.poses3d_mm[..., 2].max(initial=0))
        extent_mm = np.ptp(people.poses3d_mm, axis=1).max(initial=0)
        tallest_mm = max(tallest_mm, extent_mm, people.statures_mm.max(initial=0))
    print(
        f'{BUDGETS[detect_interval]}: {len(counts)} frames of {rgb.shape[1]} x {rgb.shape[0]}, '
        f'no ROS: {1000 / np.mean(frame_ms):.1f} frames per second '
        f'(median {np.median(frame_ms):.0f} ms, '
        f'95th percentile {np.percentile(frame_ms, 95):.0f} ms), {np.mean(counts):.2f} people per '
        f'frame, {len(ids)} ids, maximum depth of a joint {deepest_mm / 1000:.1f} m, maximum '
        f'height of a person {tallest_mm / 1000:.2f} m'
    )


def main() -> None:
    """Measure and print."""
    print(machine.describe())
    follow_video(0, 10_000)
    follow_video(1, 100)
    for name, size in STILLS.items():
        follow_still(name, size)


if __name__ == '__main__':
    sys.exit(main())
