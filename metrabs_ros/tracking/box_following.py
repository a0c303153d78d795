"""Detection in boxes: a detector runs every few frames, predicted boxes are used in between."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.box_overlap import box_iou
from metrabs_ros.crop_networks.box_cameras import virtual_cameras_for_boxes
from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.options import Options, View
from metrabs_ros.people import People
from metrabs_ros.pose_estimator import PoseEstimator, Poses
from metrabs_ros.skeletons.conventions import Skeleton
from metrabs_ros.tracking.detection_history import ALL_ATTEMPTED, Attempts
from metrabs_ros.tracking.timed_view import TimedView

DEFAULT_INTERVAL = 5
"""Run the detector every N frames unless another interval is set."""
MAX_INTERVAL_S = 0.3
"""Maximum time between two runs of the detector.  With the frames that confirm a track, people
entering the image are published within 0.5 s."""
MAX_RUNS_FOR_LOST = 3
"""The detector runs in this many consecutive frames after a track is lost."""
MIN_PREDICTED_BOX_PX = 8.0
"""Minimum width and height of predicted boxes."""
MIN_SUPPORT_IOU = 0.3
"""Minimum IoU of a detection in the background and the track that it shows."""


class BackgroundDetection:
    """
    Detection of people in an image while the network processes others.

    Parameters
    ----------
    estimator
        Detects people in the background.
    view, options
        The image, and the options of detection.
    tracks
        State of all tracks at the time of the image.
    """

    def __init__(
        self, estimator: PoseEstimator, view: View, options: Options, tracks: People
    ) -> None:
        self._estimator = estimator
        self._view = view
        self._options = options
        self._tracks = tracks
        self._future: Future[tuple[FloatArray, ...]] | None = None

    def start(self) -> Future[tuple[FloatArray, ...]]:
        """Start the detection unless it has started; recorded images need none."""
        if self._future is None:
            self._future = self._estimator.start_detection(self._view, self._options)
        return self._future

    def boxes_in(self, predicted: People | None, followed: People) -> Boxes:
        """
        Return the boxes of people in the next image.

        Parameters
        ----------
        predicted
            State of all tracks at the time of the next image.
        followed
            Those that would be followed without the detection.

        Returns
        -------
        The detected boxes, moved as far as the tracks that they show, and the predicted boxes of
        tracks that are newer than the detection.
        """
        detected = Boxes(*self.start().result())
        moved_px = detected.boxes_px.copy()
        if predicted is not None:
            match = match_boxes(detected.boxes_px, self._tracks.boxes_px)
            for i in np.flatnonzero(match >= 0).tolist():
                now = np.flatnonzero(predicted.ids == self._tracks.ids[match[i]])
                for row in now[:1]:
                    before_px, now_px = self._tracks.boxes_px[match[i]], predicted.boxes_px[row]
                    moved_px[i, :2] += (now_px - before_px)[:2] + (now_px - before_px)[2:] / 2
        newer = followed.select(~np.isin(followed.ids, self._tracks.ids))
        return Boxes.concatenate(
            [Boxes(moved_px, detected.scores), Boxes(newer.boxes_px, newer.confidence)]
        )


class BoxFollower:
    """
    Detects people in the images of one camera by their boxes.

    The detector runs every few frames, and in the next frame after a track is lost.  In the other
    frames, poses are estimated in the predicted boxes of the tracks.

    If the estimator detects in the background, the network processes the predicted boxes
    meanwhile, and the detected boxes are used in the next frame.  The results do not depend on the
    duration of the detection.

    Parameters
    ----------
    estimator
        Detects people and estimates poses in single images.
    options
        Options of detection and pose estimation; may be replaced between two images.
    detect_interval
        Run the detector every N frames; 0: at least every 5 frames.  It also runs if the last
        run was more than 0.3 s ago.
    """

    def __init__(
        self, estimator: PoseEstimator, options: Options, detect_interval: int = 0
    ) -> None:
        self.options = options
        self.detect_interval = detect_interval
        self.estimator = estimator
        self.reset()

    def detect(self, timed_view: TimedView, predicted: People | None) -> People:
        """Detect the people in the next image; see `StreamDetector`."""
        boxes = self.select_boxes(timed_view, predicted)
        return detect_in_boxes([self], [timed_view], [boxes])[0]

    def reset(self) -> None:
        """Run the detector in the next image."""
        self.attempts = ALL_ATTEMPTED
        self._detected_s = -np.inf
        self._last_s = -np.inf
        self._frames = 0
        self._runs_for_lost = 0
        self._background: BackgroundDetection | None = None

    def assign_ids(self, ids: NDArray[np.int64]) -> None:
        """Do nothing, as the detector has no state per track; see `StreamDetector`."""

    def state(self) -> FloatArray:
        """Return an empty array, as the state follows from the stamps; see `StreamDetector`."""
        return np.zeros(0)

    def replay(
        self, timed_view: TimedView, predicted: People | None, detected: People, state: FloatArray
    ) -> None:
        """Update the detection schedule; see `StreamDetector`."""
        self._advance(timed_view, predicted)

    def select_boxes(self, timed_view: TimedView, predicted: People | None) -> Boxes | None:
        """Return the boxes in the next image, or None to run the detector; count the frame."""
        earlier = self._background
        followed = self._advance(timed_view, predicted)
        if timed_view.boxes is not None:
            visible = timed_view.boxes.select(_visible(timed_view.boxes.boxes_px, timed_view))
            return visible.highest_scores(self.options.max_detections)
        if followed is None:
            return None
        if earlier is None:
            boxes = Boxes(followed.boxes_px, followed.confidence)
        else:
            boxes = earlier.boxes_in(predicted, followed)
            boxes = boxes.clipped_to(timed_view.view.image.shape)
            boxes = boxes.select(_visible(boxes.boxes_px, timed_view))
            boxes = boxes.highest_scores(self.options.max_detections)
        if self._background is not None:
            self._background.start()
        return boxes

    def _advance(self, timed_view: TimedView, predicted: People | None) -> People | None:
        """
        Advance the schedule of detection by a frame.

        Returns
        -------
        The tracks that are followed in the frame; None if the detector runs in the foreground.
        """
        earlier, self._background = self._background, None
        step_s, self._last_s = timed_view.stamp_s - self._last_s, timed_view.stamp_s
        self.attempts = ALL_ATTEMPTED
        if timed_view.boxes is not None:
            return None
        is_due = predicted is None or self._is_due(timed_view.stamp_s + step_s, predicted)
        self._frames += 1
        if is_due:
            self._detected_s, self._frames = timed_view.stamp_s, 0
        if predicted is None or (is_due and not self.estimator.detects_in_background):
            return None
        if is_due:
            self._background = BackgroundDetection(
                self.estimator, timed_view.view, self.options, predicted
            )
        large_enough = np.all(predicted.boxes_px[:, 2:] >= MIN_PREDICTED_BOX_PX, axis=1)
        tracks = predicted.select(predicted.seen & large_enough)
        tracks = tracks.select(_visible(tracks.boxes_px, timed_view))
        if earlier is None:
            self.attempts = Attempts(tracks.ids, tracks.ids)
        return tracks

    def _is_due(self, next_s: float, predicted: People) -> bool:
        """Return whether the detector must run before the next frame, expected at `next_s`."""
        is_lost = bool((~predicted.seen & predicted.in_view.any(axis=1)).any())
        self._runs_for_lost = self._runs_for_lost + 1 if is_lost else 0
        return (
            self._frames + 1 >= (self.detect_interval or DEFAULT_INTERVAL)
            or not 0 <= next_s - self._detected_s <= MAX_INTERVAL_S
            or 0 < self._runs_for_lost <= MAX_RUNS_FOR_LOST
        )


def match_boxes(first_px: FloatArray, second_px: FloatArray) -> NDArray[np.int64]:
    """Return the index of the box among [M, 4] that each of [N, 4] overlaps most, or -1, [N]."""
    match = np.full(len(first_px), -1)
    iou = box_iou(first_px[:, None], second_px[None])
    for flat in np.argsort(-iou, axis=None, kind='stable').tolist():
        i, j = divmod(flat, len(second_px))
        if iou[i, j] >= MIN_SUPPORT_IOU and match[i] < 0 and j not in match:
            match[i] = j
    return match


def _visible(boxes_px: FloatArray, timed_view: TimedView) -> BoolArray:
    """Return which boxes [N, 4] have rays; with some lenses, image corners have none."""
    return virtual_cameras_for_boxes(boxes_px, timed_view.view.camera, 1).usable


def detect_in_boxes(
    followers: Sequence[BoxFollower],
    timed_views: Sequence[TimedView],
    boxes: Sequence[Boxes | None],
) -> list[People]:
    """
    Estimate the poses of the people in images of several cameras, in one run of the network.

    The followers' state does not change, so that a run that failed can be repeated.

    Parameters
    ----------
    followers
        One for each image, all with the same estimator and options.
    timed_views
        The images.
    boxes
        Boxes in each image, by `BoxFollower.select_boxes`; None to run the detector.

    Returns
    -------
    The people in each image.
    """
    estimator, options = followers[0].estimator, followers[0].options
    views = [timed_view.view for timed_view in timed_views]
    poses: dict[int, Poses] = {}
    without_boxes = [i for i, own in enumerate(boxes) if own is None]
    if without_boxes:
        detected = estimator.find_people([views[i] for i in without_boxes], options)
        poses.update(zip(without_boxes, detected))
    with_boxes = [(i, own) for i, own in enumerate(boxes) if own is not None]
    if with_boxes:
        estimated = estimator.pose_people(
            [views[i] for i, _ in with_boxes], [own.boxes_px for _, own in with_boxes], options
        )
        for (i, own), unscored in zip(with_boxes, estimated):
            scored = dataclasses.replace(unscored, scores=own.scores)
            # The predicted box of a person that left the image contains no plausible pose.
            if timed_views[i].boxes is None and options.suppress_implausible_poses:
                scored = scored.select(estimator.plausible_people(scored))
            poses[i] = scored
    skeleton = estimator.posed_skeleton(options)
    return [to_people(poses[i], skeleton, view.image.shape) for i, view in enumerate(views)]


def to_people(poses: Poses, skeleton: Skeleton, image_shape: tuple[int, ...]) -> People:
    """
    Return the people of poses, averaged over the test-time augmentations.

    The joint confidences and standard deviations are those of the network.  Where the network has
    none, the joint confidence is the detection score, and the standard deviations are the scatter
    over the augmentations, or derived from the joint confidences if there is only one.

    The image points of the network are kept, except for joints outside the image if their
    confidences are not known: such networks return any point of the crop for them.
    """
    poses3d_mm, poses2d_px = poses.poses3d_mm.mean(axis=1), poses.poses2d_px.mean(axis=1)
    people = People.from_detections(
        skeleton, poses.boxes_px, poses.scores, poses3d_mm, poses2d_px, image_shape
    )
    network_poses2d_px = poses.network_poses2d_px.mean(axis=1)
    if not poses.joint_confidence.shape[1]:
        network_poses2d_px = np.where(people.in_view[..., None], network_poses2d_px, poses2d_px)
    people = dataclasses.replace(people, network_poses2d_px=network_poses2d_px)
    if poses.joint_confidence.shape[1]:
        # Empty arrays make People derive the deviations from the new confidences.
        people = dataclasses.replace(
            people,
            joint_confidence=poses.joint_confidence,
            joint_std_mm=poses.joint_std_mm,
            axis_std_mm=np.zeros(0),
        )
    if poses.joint_std_mm.shape[1] or poses.poses3d_mm.shape[1] == 1:
        return people
    scatter_mm = np.sqrt(poses.poses3d_mm.var(axis=1).sum(axis=-1))
    return dataclasses.replace(people, joint_std_mm=scatter_mm)
