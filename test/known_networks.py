"""A BlazePose estimator with known people instead of networks."""

from __future__ import annotations

import numpy as np
from strategies import standing_person

from metrabs_ros.backends.selection import Choice
from metrabs_ros.blazepose.agreement import COCO_JOINTS
from metrabs_ros.blazepose.estimator import DEFAULT_SAMPLING, BlazePoseEstimator, PosedRegions
from metrabs_ros.camera import Camera
from metrabs_ros.movenet.decoding import Keypoints
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33

IMAGE = np.zeros((480, 640, 3), np.uint8)
CAMERA = Camera(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]))
UP = np.array([0, -1.0, 0])
FACING_CAMERA = 0.5


def body_at(position_mm, up=UP, facing=FACING_CAMERA):
    """Return the joints of a person with the hips at a position, [33, 3]."""
    return np.array(position_mm, float) + standing_person(up, facing)


def front_mistaken_for_back(poses_mm):
    """Return poses [N, 33, 3] with the sides exchanged and the relative depths negated."""
    hips_mm = poses_mm[:, 23:25].mean(axis=1, keepdims=True)
    return hips_mm + (poses_mm[:, BLAZEPOSE_33.mirror] - hips_mm) * (1, 1, -1)


class KnownNetworks(BlazePoseEstimator):
    """
    The detector finds known people, and each crop shows the one with the nearest hips.

    Parameters
    ----------
    bodies_mm
        [33, 3] each, the people; may be changed between two images.

    Attributes
    ----------
    scores
        The detector's score of each person.
    only_found_at_px
        The only input size of the detector at which a person is found, by its index.
    passes
        Input sizes of the detector in each of its runs.
    mistakes_front
        Which crops mistake the front of people for the back: those that are not mirrored (False)
        and those that are (True).  Crops around keypoints of the detector do not.
    max_turn
        Crops that are turned from the upright of the camera by more, in radians, mistake the
        front of people, too.
    crops, samplings
        Number of crops in each run of the landmark network, and how they are sampled.
    """

    def __init__(self, *bodies_mm):
        choice = Choice('none', 'fp32', 'nowhere', 'nothing is calculated')
        super().__init__(self._keypoints, None, choice)
        self.bodies_mm = list(bodies_mm)
        self.scores = [0.9 - 0.1 * i for i in range(len(bodies_mm))]
        self.only_found_at_px = {}
        self.passes = []
        self.mistakes_front = ()
        self.max_turn = np.inf
        self.crops, self.samplings = [], []
        self._is_detecting = False

    def _keypoints(self, image, threshold, nms_iou_threshold, flip_aug, sides_px, quarter_turns):
        self.passes.append(tuple(sides_px))
        scores = np.array(self.scores)
        for i, side_px in self.only_found_at_px.items():
            scores[i] *= side_px in sides_px
        order = np.argsort(-scores, kind='stable')
        order = order[scores[order] >= threshold]
        points_px = CAMERA.project(np.array(self.bodies_mm).reshape(-1, 33, 3)[order])
        points_px = points_px[:, COCO_JOINTS]
        low, high = points_px.min(axis=1), points_px.max(axis=1)
        boxes_px = np.concatenate([low, high - low], axis=1)
        return Keypoints(boxes_px, scores[order], points_px, np.full(points_px.shape[:2], 0.9))

    def pose_keypoints(self, *args):
        self._is_detecting = True
        try:
            return super().pose_keypoints(*args)
        finally:
            self._is_detecting = False

    def estimate(self, image, camera, regions, sampling=DEFAULT_SAMPLING, mirrored=None):
        count = len(regions)
        mirrored = np.zeros(count, bool) if mirrored is None else mirrored
        # Crops without a person have an arbitrary pose.
        bodies_mm = np.array([*self.bodies_mm, body_at((0, 0, 5000))])
        hips_px = camera.project(bodies_mm[:, 23:25].mean(axis=1))
        apart_px = np.linalg.norm(regions.centre_px[:, None] - hips_px, axis=-1)
        radius_px = np.linalg.norm(regions.top_px - regions.centre_px, axis=-1)
        apart_px[:, -1] = radius_px / 2
        nearest = apart_px.argmin(axis=1)
        poses_mm = bodies_mm[nearest]
        is_mistaken = regions.angle_to(regions.turned_upright(camera)) > self.max_turn
        is_mistaken |= np.isin(mirrored, self.mistakes_front)
        is_mistaken &= not self._is_detecting
        poses_mm = np.where(
            is_mistaken[:, None, None], front_mistaken_for_back(poses_mm), poses_mm
        )
        self.crops.append(count)
        self.samplings.append(sampling)
        confidence = np.where(nearest == len(self.bodies_mm), 0.01, 0.9)
        people = self._people(
            image,
            camera,
            poses_mm,
            np.full((count, 33), 0.8),
            confidence,
            camera.project(poses_mm),
        )
        return PosedRegions(people, regions)
