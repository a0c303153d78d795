"""Detection with BlazePose: regions of tracks are followed, new people are searched in tiles."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.blazepose.detector import (
    MIN_TILE_PX,
    RegionDetections,
    Tile,
    guess_neighbours,
    square_iou,
)
from metrabs_ros.blazepose.estimator import BlazePoseEstimator, PosedRegions
from metrabs_ros.blazepose.regions import Regions
from metrabs_ros.options import Options, View
from metrabs_ros.people import UNKNOWN_ID, People
from metrabs_ros.plausibility import has_plausible_size, is_confident, suppress_duplicates
from metrabs_ros.tracking.detection_history import ALL_ATTEMPTED, Attempts
from metrabs_ros.tracking.tile_search import RateBudget, TileSearch
from metrabs_ros.tracking.timed_view import TimedView

MIN_CONFIDENCE = 0.5
"""Minimum confidence of a followed person."""
KNOWN_IOU = 0.6
"""Detections with a larger IoU with a followed region are discarded."""
CANDIDATES_PER_FRAME = 3
"""Maximum number of new detections that are verified in each frame."""
BUDGET_PERIOD_S = 0.1
"""Period of the search budget: frames in the same period share its tiles."""
GUESSES_PER_PERIOD = 0.5
"""Number of regions next to followed people that are examined in each period."""
MAX_FOLLOW_MISSES = 2
"""Number of frames for which lost tracks are followed."""
LOST_TILE_FACTOR = 3.0
"""Side of the tile around a lost person, as a multiple of the radius of the region."""
DEFAULT_OPTIONS = Options()


class LastRegion(NamedTuple):
    """Region of a track when it was last detected, with the pose's centroid and mean depth."""

    centre_px: FloatArray
    top_px: FloatArray
    centroid_px: FloatArray
    depth_mm: float
    misses: int
    """Number of frames since then."""


class RegionFollower:
    """
    Detects people in the images of one camera within a budget of detector runs.

    Poses of tracks are estimated in their predicted regions.  New people are searched for in a
    few tiles of the image in each period of 0.1 s: where a track was lost, where the image of a
    static camera has changed, and in all other tiles in turn.

    Parameters
    ----------
    estimator
        Detects people and estimates poses in single images.
    options
        Options of detection; may be replaced between two images.
    detect_interval
        Number of frames in which all tiles are searched once; 0: 20 tiles per second, or 40 if
        the whole image changes.
    """

    def __init__(
        self,
        estimator: BlazePoseEstimator,
        options: Options = DEFAULT_OPTIONS,
        detect_interval: int = 0,
    ) -> None:
        self.options = options
        self.detect_interval = detect_interval
        self._estimator = estimator
        self._search = concurrent.futures.ThreadPoolExecutor(1, 'search')
        self.reset()

    def reset(self) -> None:
        """Search all tiles of the next image."""
        self.attempts = ALL_ATTEMPTED
        self._last_regions: dict[int, LastRegion] = {}
        self._detected: PosedRegions | None = None
        self._followed_count = 0
        self._guesses_due, self._guesses_made = RateBudget(), 0
        self._stamp_s = -np.inf
        self._image_shape: tuple[int, ...] = ()

    def detect(self, timed_view: TimedView, predicted: People | None) -> People:
        """Detect the people in the next image; see `StreamDetector`."""
        image = timed_view.view.image
        predicted = self._unless_resized(image, predicted)
        ids, regions = self._predicted_regions(predicted)
        self._note_attempts(ids)
        periods = self._periods_since(timed_view.stamp_s)
        # The two networks run in parallel.
        search = self._search.submit(
            self._estimator.detect,
            image,
            self._tiles_to_search(image, predicted, periods),
            self.options,
        )
        try:
            followed = self._follow(timed_view.view, ids, regions)
        finally:
            # A search that continues after a failure would share the network with the next image.
            concurrent.futures.wait([search])
        self._followed_count = len(followed.people)
        candidates = RegionDetections.concatenate(
            [search.result(), self._guess_next_to(followed, periods)]
        )
        new_people = self._verify_new(timed_view.view, candidates, followed)
        together = PosedRegions.concatenate([followed, new_people])
        # Followed people take precedence over new ones, and older tracks over newer ones.
        negative_ids = -followed.people.ids.astype(np.float64)
        new_seniority = new_people.people.confidence + negative_ids.min(initial=0) - 2
        seniority = np.concatenate([negative_ids, new_seniority])
        kept = suppress_duplicates(together.people, seniority)
        is_new = np.arange(len(seniority)) >= len(negative_ids)
        self._detected = together.select(
            kept & ~(is_new & together.is_contained_duplicate(seniority))
        )
        return self._detected.people

    def assign_ids(self, ids: NDArray[np.int64]) -> None:
        """Store the regions of the detected people; see `StreamDetector`."""
        assert self._detected is not None
        people, regions = self._detected.people, self._detected.regions
        self._last_regions = {
            track_id: last._replace(misses=last.misses + 1)
            for track_id, last in self._last_regions.items()
        }
        centroids_px = people.poses2d_px.mean(axis=1)
        depths_mm = people.poses3d_mm[..., 2].mean(axis=1)
        for i, track_id in enumerate(ids.tolist()):
            if track_id != UNKNOWN_ID:
                self._last_regions[track_id] = LastRegion(
                    regions.centre_px[i],
                    regions.top_px[i],
                    centroids_px[i],
                    float(depths_mm[i]),
                    0,
                )

    def state(self) -> FloatArray:
        """Return the number of followed people and the regions of all N, [1 + 4 N]."""
        assert self._detected is not None, 'no image has been processed'
        regions = self._detected.regions
        numbers = np.concatenate([regions.centre_px, regions.top_px], axis=1)
        return np.concatenate([[self._followed_count], numbers.reshape(-1)])

    def replay(
        self, timed_view: TimedView, predicted: People | None, detected: People, state: FloatArray
    ) -> None:
        """Update the search and the regions; see `StreamDetector`."""
        image = timed_view.view.image
        predicted = self._unless_resized(image, predicted)
        ids, _ = self._predicted_regions(predicted)
        self._note_attempts(ids)
        periods = self._periods_since(timed_view.stamp_s)
        self._tiles_to_search(image, predicted, periods)
        self._followed_count = int(state[0])
        self._guess(self._followed_count, periods)
        numbers = state[1:].reshape(-1, 4)
        self._detected = PosedRegions(detected, Regions(numbers[:, :2], numbers[:, 2:]))

    def _note_attempts(self, ids: NDArray[np.int64]) -> None:
        """Store which tracks would be detected if visible: those followed, or all."""
        self.attempts = ALL_ATTEMPTED if self.detect_interval == 1 else Attempts(ids)

    def _unless_resized(self, image: ImageArray, predicted: People | None) -> People | None:
        """Return the predicted people; reset and return None if the image size has changed."""
        if image.shape == self._image_shape:
            return predicted
        self.reset()
        self._image_shape = image.shape
        self._tiles = TileSearch(image.shape)
        return None

    def _predicted_regions(self, predicted: People | None) -> tuple[NDArray[np.int64], Regions]:
        """Return the ids of the tracks to follow, [N], and their N regions."""
        if predicted is None:
            self._last_regions = {}
            return np.zeros(0, np.int64), Regions.none()
        ids = predicted.ids.tolist()
        # The other tracks were deleted.
        self._last_regions = {
            track_id: self._last_regions[track_id]
            for track_id in ids
            if track_id in self._last_regions
        }
        followed = [
            i
            for i, track_id in enumerate(ids)
            if predicted.in_view[i].any()
            and track_id in self._last_regions
            and self._last_regions[track_id].misses <= MAX_FOLLOW_MISSES
        ]
        return predicted.ids[followed], self._moved_regions(predicted, followed)

    def _moved_regions(self, predicted: People, which: list[int]) -> Regions:
        known = [self._last_regions[int(predicted.ids[i])] for i in which]
        centroid_px = np.array([k.centroid_px for k in known]).reshape(-1, 2)
        centre_px = np.array([k.centre_px for k in known]).reshape(-1, 2)
        top_px = np.array([k.top_px for k in known]).reshape(-1, 2)
        depth_mm = np.array([k.depth_mm for k in known])
        now_px = predicted.poses2d_px[which].mean(axis=1)
        now_mm = predicted.poses3d_mm[which][..., 2].mean(axis=1)
        scale = np.clip(depth_mm / np.maximum(now_mm, 1.0), 0.5, 2.0)[:, None]
        moved_px = now_px + scale * (centre_px - centroid_px)
        return Regions(moved_px, moved_px + scale * (top_px - centre_px))

    def _follow(self, view: View, ids: NDArray[np.int64], regions: Regions) -> PosedRegions:
        seen = self._estimator.estimate(view.image, view.camera, regions)
        people = dataclasses.replace(seen.people, ids=ids)
        is_present = (
            (people.confidence > MIN_CONFIDENCE)
            & is_confident(people, seen.regions.tilt_degrees(view.camera))
            & has_plausible_size(people)
        )
        return PosedRegions(people, seen.regions).select(is_present)

    def _verify_new(
        self, view: View, detections: RegionDetections, followed: PosedRegions
    ) -> PosedRegions:
        """Verify detections that are not followed already."""
        overlap = square_iou(detections.regions, followed.regions)
        known = overlap.max(axis=1, initial=0) > KNOWN_IOU
        candidates = detections.select(~known)
        if self._last_regions and self.detect_interval != 1:
            highest_scores = np.argsort(-candidates.scores, kind='stable')[:CANDIDATES_PER_FRAME]
            candidates = candidates.select(highest_scores)
        return self._estimator.verify(view.image, view.camera, candidates)

    def _periods_since(self, stamp_s: float) -> float:
        """Return the number of budget periods since the last frame, from 0 to 1."""
        step_s, self._stamp_s = stamp_s - self._stamp_s, stamp_s
        # Equal stamps do not measure time.
        return min(step_s / BUDGET_PERIOD_S, 1.0) if step_s > 0 else 1.0

    def _guess_next_to(self, followed: PosedRegions, periods: float) -> RegionDetections:
        """Return candidate regions next to followed people, next to another one each time."""
        count = len(followed.people)
        guesses = self._guess(count, periods)
        # On one side of all people, then on the other.
        passes, index = divmod(self._guesses_made, max(count, 1))
        return guess_neighbours(
            followed.regions.select(np.array([index] * guesses, int)), (-1) ** passes
        )

    def _guess(self, count: int, periods: float) -> int:
        """Count and return the guesses that are due next to `count` followed people."""
        guesses = min(self._guesses_due.take(GUESSES_PER_PERIOD * periods), count)
        self._guesses_made += guesses
        return guesses

    def _tiles_to_search(
        self, image: ImageArray, predicted: People | None, periods: float
    ) -> list[Tile]:
        if predicted is None:
            return self._tiles.everywhere(image)
        if self.detect_interval:
            return self._tiles.share(image, self.detect_interval)
        return self._tiles.promising(
            image, predicted.boxes_px, self._tiles_of_lost(predicted), periods
        )

    def _tiles_of_lost(self, predicted: People) -> list[Tile]:
        """Return a tile around each track that was not detected in the last frame."""
        lost = ~predicted.seen & predicted.in_view.any(axis=1)
        which = [
            i for i in np.flatnonzero(lost).tolist() if int(predicted.ids[i]) in self._last_regions
        ]
        regions = self._moved_regions(predicted, which)
        limit_px = np.array(self._image_shape[1::-1])
        # The centre of a person at the image edge may be outside of the image.
        centre_px = np.clip(regions.centre_px, 0, limit_px - 1)
        side_px = np.clip(LOST_TILE_FACTOR * regions.radius_px, MIN_TILE_PX, limit_px.max())
        corner_px = centre_px - side_px[:, None] / 2
        return [
            Tile(round(left), round(top), round(side))
            for (left, top), side in zip(corner_px.tolist(), side_px.tolist())
        ]
