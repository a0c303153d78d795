"""Measure how fast people are followed in the demo's video, how many, and how large they are."""

from __future__ import annotations

import sys
import time

import cv2
import machine
import numpy as np

import metrabs_ros
from metrabs_ros.camera import Camera
from metrabs_ros.footage import default_footage
from metrabs_ros.tracking.follow import PeopleFollower


def main() -> None:
    """Measure and print."""
    follow = PeopleFollower(metrabs_ros.load_model('blazepose'))
    video = cv2.VideoCapture(str(default_footage()))
    frame_ms, counts, deepest_mm, tallest_mm, ids = [], [], 0.0, 0.0, set()
    while True:
        is_there, image = video.read()
        if not is_there:
            break
        rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        camera = Camera.from_fov(55, rgb.shape)
        start_s = time.perf_counter()
        people = follow(rgb, camera)
        frame_ms.append(1000 * (time.perf_counter() - start_s))
        counts.append(len(people))
        ids |= set(people.ids.tolist())
        deepest_mm = max(deepest_mm, people.poses3d_mm[..., 2].max(initial=0))
        extent_mm = np.ptp(people.poses3d_mm, axis=1).max(initial=0)
        tallest_mm = max(tallest_mm, extent_mm, people.statures_mm.max(initial=0))
    print(machine.describe())
    print(
        f'{len(counts)} frames of {rgb.shape[1]} x {rgb.shape[0]}, no ROS: '
        f'{1000 / np.mean(frame_ms):.1f} frames a second (median {np.median(frame_ms):.0f} ms, '
        f'95th percentile {np.percentile(frame_ms, 95):.0f} ms), {np.mean(counts):.2f} people a '
        f'frame, {len(ids)} ids, deepest joint {deepest_mm / 1000:.1f} m, tallest person '
        f'{tallest_mm / 1000:.2f} m'
    )


if __name__ == '__main__':
    sys.exit(main())
