"""Finding people by their boxes: a detector's now and then, and in between their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.metrabs.box_cameras import virtual_cameras_for_boxes
from metrabs_ros.options import Options
from metrabs_ros.people import People
from metrabs_ros.plausibility import plausible_poses
from metrabs_ros.pose_estimator import PoseEstimator, Poses
from metrabs_ros.skeletons.conventions import Skeleton
from metrabs_ros.tracking.detection_history import ALL_ATTEMPTED, Attempts
from metrabs_ros.tracking.timed_view import TimedView

USUAL_INTERVAL = 5
LONGEST_INTERVAL_S = 0.3
"""With the frames that it takes to be confirmed, nobody is to stay undiscovered for 0.5 s."""
SEARCHES_FOR_LOST = 3
SMALLEST_BOX_PX = 8.0


class BoxFinder:
    """
    Finds the people in a stream of images by their boxes.

    A detector looks for people every few frames, and at once when somebody is lost; in the frames
    between, known people are looked at where they are expected.

    Parameters
    ----------
    estimator
        Finds people and their poses in a single image.
    options
        How; may be replaced from one image to the next.
    detect_interval
        After how many frames the detector looks again; 0 for at most 5.  In any case it does so
        after 0.3 s.
    """

    def __init__(
        self, estimator: PoseEstimator, options: Options, detect_interval: int = 0
    ) -> None:
        self.options = options
        self.detect_interval = detect_interval
        self.estimator = estimator
        self.reset()

    def __call__(self, timed_view: TimedView, expected: People | None) -> People:
        """Find the people in the next image; see `PeopleFinder`."""
        return people_in_boxes([self], [timed_view], [self.boxes(timed_view, expected)])[0]

    def reset(self) -> None:
        """Let the detector look in the next image."""
        self.attempts = ALL_ATTEMPTED
        self._searched_s = -np.inf
        self._last_s = -np.inf
        self._frames = 0
        self._searches_for_lost = 0

    def assign_ids(self, ids: NDArray[np.int64]) -> None:
        """Take no note of who was found; see `PeopleFinder`."""

    def memory(self) -> FloatArray:
        """Return nothing: the state follows from the stamps alone; see `PeopleFinder`."""
        return np.zeros(0)

    def replay(
        self, timed_view: TimedView, expected: People | None, found: People, memory: FloatArray
    ) -> None:
        """Update when the detector ran last; see `PeopleFinder`."""
        self.boxes(timed_view, expected)

    def boxes(self, timed_view: TimedView, expected: People | None) -> Boxes | None:
        """Return where to look in the next image; None if the detector is to say so."""
        step_s, self._last_s = timed_view.stamp_s - self._last_s, timed_view.stamp_s
        self.attempts = ALL_ATTEMPTED
        if timed_view.boxes is not None:
            return surest(
                timed_view.boxes.select(_usable(timed_view.boxes.boxes_px, timed_view)),
                self.options,
            )
        if expected is None or self._is_due(timed_view.stamp_s + step_s, expected):
            self._searched_s, self._frames = timed_view.stamp_s, 0
            return None
        self._frames += 1
        wide_enough = np.all(expected.boxes_px[:, 2:] >= SMALLEST_BOX_PX, axis=1)
        known = expected.select(expected.seen & wide_enough)
        known = known.select(_usable(known.boxes_px, timed_view))
        self.attempts = Attempts(known.ids, known.ids)
        return Boxes(known.boxes_px, known.confidence)

    def _is_due(self, next_s: float, expected: People) -> bool:
        """Tell whether the detector cannot wait for the next frame, at a time."""
        lost = bool((~expected.seen & expected.in_view.any(axis=1)).any())
        self._searches_for_lost = self._searches_for_lost + 1 if lost else 0
        return (
            self._frames + 1 >= (self.detect_interval or USUAL_INTERVAL)
            or not 0 <= next_s - self._searched_s <= LONGEST_INTERVAL_S
            or 0 < self._searches_for_lost <= SEARCHES_FOR_LOST
        )


def _usable(boxes_px: FloatArray, timed_view: TimedView) -> BoolArray:
    """Return which boxes [N, 4] the lens sees: no ray leads to the corners of some images."""
    return virtual_cameras_for_boxes(boxes_px, timed_view.view.camera, 1).usable


def surest(boxes: Boxes, options: Options) -> Boxes:
    """Return the boxes with the highest scores, at most as many as the options allow."""
    if not 0 <= options.max_detections < len(boxes):
        return boxes
    return boxes.select(np.argsort(-boxes.scores, kind='stable')[: options.max_detections])


def people_in_boxes(
    finders: Sequence[BoxFinder], timed_views: Sequence[TimedView], boxes: Sequence[Boxes | None]
) -> list[People]:
    """
    Find the people in boxes of several streams' images, with one run of the network for all.

    No finder's state changes, so that a run that failed can be repeated.

    Parameters
    ----------
    finders
        Of one estimator, with the same options.
    shots
        The image of each.
    boxes
        Where to look in each, by `BoxFinder.boxes`; None if the detector is to say so.
    """
    estimator, options = finders[0].estimator, finders[0].options
    views = [timed_view.view for timed_view in timed_views]
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
            posed = dataclasses.replace(its, scores=own.scores)
            # Whoever has gone leaves a box in which there is no pose to be had.
            if timed_views[i].boxes is None and options.suppress_implausible_poses:
                posed = posed.select(plausible_poses(posed, estimator.skeleton))
            poses[i] = posed
    return [
        as_people(poses[i], estimator.skeleton, view.image.shape) for i, view in enumerate(views)
    ]


def as_people(poses: Poses, skeleton: Skeleton, image_shape: tuple[int, ...]) -> People:
    """
    Return the people of poses, averaged over their augmentations.

    The joint confidences are those of the network, or the person's score where the network does
    not estimate them.  The standard deviations are the scatter of the augmentations, or follow
    from the joint confidences where there is only one augmentation.
    """
    poses3d_mm, poses2d_px = poses.poses3d_mm.mean(axis=1), poses.poses2d_px.mean(axis=1)
    people = People.as_found(
        skeleton, poses.boxes_px, poses.scores, poses3d_mm, poses2d_px, image_shape
    )
    if len(poses.joint_confidence):
        # The empty array makes People derive the deviations from the new confidences.
        people = dataclasses.replace(
            people, joint_confidence=poses.joint_confidence, joint_std_mm=np.zeros(0)
        )
    if poses.poses3d_mm.shape[1] == 1:
        return people
    scatter_mm = np.sqrt(poses.poses3d_mm.var(axis=1).sum(axis=-1))
    return dataclasses.replace(people, joint_std_mm=scatter_mm)
