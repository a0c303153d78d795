"""A fake pose estimator without networks."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
from test_people import people_at

from metrabs_ros.backends.selection import Choice
from metrabs_ros.plausibility import plausible_poses
from metrabs_ros.pose_estimator import PoseEstimator, Poses
from metrabs_ros.skeletons.builtin import DEFINITIONS
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33


class KnownPeople(PoseEstimator):
    """
    A pose estimator that returns people at given positions.

    Parameters
    ----------
    places_mm
        Positions of their hips, camera frame.
    delay_s
        Duration of the detection in one image.
    """

    def __init__(self, *places_mm, delay_s=0.0):
        all_joints = {'': BLAZEPOSE_33.within(BLAZEPOSE_33)}
        names = ('coco_17', 'smpl_24')
        super().__init__(
            {**all_joints, **{name: DEFINITIONS[name].within(all_joints) for name in names}},
            Choice('none', 'fp32', 'nowhere', 'nothing is calculated'),
        )
        self.places_mm = places_mm
        self.delay_s = delay_s
        self.seen = []

    def check(self, options):
        if options.num_aug > 5:
            raise ValueError(f'num_aug is {options.num_aug}; this model has at most 5')

    def find_people(self, views, options):
        return [self.poses_of(view, options) for view in views]

    def pose_people(self, views, boxes_px, options):
        results = []
        for view, own_px in zip(views, boxes_px):
            poses = self.poses_of(view, options).select(slice(len(own_px)))
            results.append(dataclasses.replace(poses, boxes_px=own_px))
        return results

    def plausible_people(self, poses):
        return plausible_poses(poses, self.skeleton)

    def poses_of(self, view, options):
        """Return the people in one image; subclasses may override it."""
        self.seen.append((view.image.shape, view.camera, options))
        time.sleep(self.delay_s)
        people = people_at(*self.places_mm)
        steps = 1 + 0.01 * np.arange(options.num_aug)[:, None, None]
        return Poses(
            people.boxes_px,
            people.confidence,
            people.poses3d_mm[:, None] * steps,
            people.poses2d_px[:, None].repeat(options.num_aug, axis=1),
        )
