"""Finding people anew in each frame of a stream, and who of them was there before."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.estimator import Options, PoseEstimator, Poses, View
from metrabs_ros.people import UNKNOWN_ID, People, inside_image
from metrabs_ros.skeleton import Skeleton

FARTHEST_STEP_MM = 500.0
FARTHEST_STEP_OF_DISTANCE = 0.1


class EachFrame:
    """
    Finds people in a stream of images, in each image anew.

    Parameters
    ----------
    estimator
        Finds people and their poses in a single image.
    options
        How; may be replaced from one image to the next.
    """

    def __init__(self, estimator: PoseEstimator, options: Options) -> None:
        self.options = options
        self.estimator = estimator
        self._next_id = 1
        self._before: People | None = None

    def forget(self) -> None:
        """Lose sight of everybody; who is found from now on gets a new id."""
        self._before = None

    def __call__(self, image: ImageArray, camera: Camera) -> People:
        """
        Find the people in the stream's next image.

        Parameters
        ----------
        image
            [H, W, 3], uint8, RGB.
        camera
            The camera that took it.

        Returns
        -------
        People with ids, with all joints of the network, camera frame.
        """
        return people_in_each([self], [View(image, camera)], [None])[0]

    def meet(self, poses: Poses, image_shape: tuple[int, ...]) -> People:
        """Return the people in the stream's next image, whose poses are known."""
        found = as_people(poses, self.estimator.skeleton, image_shape)
        people = dataclasses.replace(found, ids=self._ids(found))
        self._before = people
        return people

    def _ids(self, found: People) -> NDArray[np.int64]:
        """Give everybody the id of who was nearest in the last frame, and newcomers new ones."""
        ids = np.full(len(found), UNKNOWN_ID)
        if self._before is not None and len(self._before):
            step_mm = found.positions_mm[:, None] - self._before.positions_mm[None]
            step_mm = np.linalg.norm(step_mm, axis=-1)
            limit_mm = FARTHEST_STEP_MM + FARTHEST_STEP_OF_DISTANCE * found.distances_mm
            for nearest in np.argsort(step_mm, axis=None):
                i, j = np.unravel_index(nearest, step_mm.shape)
                known = self._before.ids[j]
                if ids[i] == UNKNOWN_ID and known not in ids and step_mm[i, j] < limit_mm[i]:
                    ids[i] = known
        new = np.flatnonzero(ids == UNKNOWN_ID)
        ids[new] = self._next_id + np.arange(len(new))
        self._next_id += len(new)
        return ids


def people_in_each(
    streams: Sequence[EachFrame], views: Sequence[View], boxes: Sequence[Boxes | None]
) -> list[People]:
    """
    Find the people in the next images of several streams, with one run of the network for all.

    Parameters
    ----------
    streams
        Of one estimator, with the same options.
    views
        The image of each.
    boxes
        Where people are, for those streams of which somebody else says so.
    """
    estimator, options = streams[0].estimator, streams[0].options
    poses: dict[int, Poses] = {}
    searched = [i for i, own in enumerate(boxes) if own is None]
    if searched:
        found = estimator.find_people_in([views[i] for i in searched], options)
        poses.update(zip(searched, found))
    known = [(i, own) for i, own in enumerate(boxes) if own is not None]
    if known:
        at_boxes = estimator.pose_people_in(
            [views[i] for i, _ in known], [own.boxes_px for _, own in known], options
        )
        for (i, own), its in zip(known, at_boxes):
            poses[i] = dataclasses.replace(its, scores=own.scores)
    return [stream.meet(poses[i], views[i].image.shape) for i, stream in enumerate(streams)]


def as_people(poses: Poses, skeleton: Skeleton, image_shape: tuple[int, ...]) -> People:
    """
    Return the people that poses are of, with the mean and the scatter of their augmentations.

    The network says nothing of single joints, so that each has its person's confidence.
    """
    poses3d_mm, poses2d_px = poses.poses3d_mm.mean(axis=1), poses.poses2d_px.mean(axis=1)
    several = poses.poses3d_mm.shape[1] > 1
    scatter_mm = np.sqrt(poses.poses3d_mm.var(axis=1).sum(axis=-1))
    return People(
        skeleton=skeleton,
        boxes_px=poses.boxes_px,
        confidence=poses.scores,
        poses3d_mm=poses3d_mm,
        poses2d_px=poses2d_px,
        joint_confidence=np.repeat(poses.scores[:, None], len(skeleton), axis=1),
        in_view=(poses3d_mm[..., 2] > 0) & inside_image(poses2d_px, image_shape),
        ids=np.full(len(poses3d_mm), UNKNOWN_ID),
        joint_std_mm=scatter_mm if several else np.zeros(0),
    )
