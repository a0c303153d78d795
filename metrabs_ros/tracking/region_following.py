"""Following people from frame to frame, so that they need not be searched for again."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray, ImageArray
from metrabs_ros.blazepose.detector import (
    SMALLEST_TILE_PX,
    Detections,
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

LEAST_PRESENCE = 0.5
KNOWN_IOU = 0.6
CANDIDATES_PER_FRAME = 3
TURN_S = 0.1
"""Frames share what is searched in a turn if there are several in so long; none has more."""
GUESSES_PER_TURN = 0.5
ATTEMPTS_AT_LOST = 2
LOST_TILE = 3.0
"""How many times the radius of a lost person's circle the tile is that is searched for them."""
DEFAULT_OPTIONS = Options()


class Known(NamedTuple):
    """Where somebody was when last seen: the circle, what it went with, how often missed since."""

    centre_px: FloatArray
    top_px: FloatArray
    place_px: FloatArray
    depth_mm: float
    misses: int


class PeopleFollower:
    """
    Finds people in a stream of images, on a budget.

    Known people are looked at where they are expected.  New ones are searched for in a few tiles
    ten times a second, or in each frame where frames are rarer: where somebody was lost, where a
    still camera's image has changed, and in turn everywhere.

    Parameters
    ----------
    estimator
        Finds people and their poses in a single image.
    options
        How to search for new ones; may be replaced from one image to the next.
    detect_interval
        In how many frames to search everywhere; 0 for 20 tiles a second, 40 where everything
        changes.
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
        """Search everywhere in the next image."""
        self.attempts = ALL_ATTEMPTED
        self._known: dict[int, Known] = {}
        self._found: PosedRegions | None = None
        self._followed_count = 0
        self._guesses_due, self._guesses_made = RateBudget(), 0
        self._stamp_s = -np.inf
        self._image_shape: tuple[int, ...] = ()

    def __call__(self, timed_view: TimedView, expected: People | None) -> People:
        """Find the people in the next image; see `PeopleFinder`."""
        image = timed_view.view.image
        expected = self._unless_resized(image, expected)
        ids, regions = self._expected_regions(expected)
        self._note_attempts(ids)
        turns = self._turns_until(timed_view.stamp_s)
        # The two networks run side by side.
        detections = self._search.submit(
            self._estimator.detect,
            image,
            self._tiles_to_search(image, expected, turns),
            self.options,
        )
        followed = self._follow(timed_view.view, ids, regions)
        self._followed_count = len(followed.people)
        candidates = Detections.concatenate([detections.result(), self._beside(followed, turns)])
        found = self._meet(timed_view.view, candidates, followed)
        together = PosedRegions.concatenate([followed, found])
        # Who is known already stays; of two known ones the longer known.
        known_since = -followed.people.ids.astype(np.float64)
        newcomers = found.people.confidence + known_since.min(initial=0) - 2
        seniority = np.concatenate([known_since, newcomers])
        kept = suppress_duplicates(together.people, seniority)
        is_new = np.arange(len(seniority)) >= len(known_since)
        self._found = together.select(
            kept & ~(is_new & together.is_contained_duplicate(seniority))
        )
        return self._found.people

    def assign_ids(self, ids: NDArray[np.int64]) -> None:
        """Take note of who those just found are; see `PeopleFinder`."""
        assert self._found is not None
        people, regions = self._found.people, self._found.regions
        self._known = {
            who: known._replace(misses=known.misses + 1) for who, known in self._known.items()
        }
        places_px = people.poses2d_px.mean(axis=1)
        depths_mm = people.poses3d_mm[..., 2].mean(axis=1)
        for i, who in enumerate(ids.tolist()):
            if who != UNKNOWN_ID:
                self._known[who] = Known(
                    regions.centre_px[i], regions.top_px[i], places_px[i], float(depths_mm[i]), 0
                )

    def memory(self) -> FloatArray:
        """Return how many people were followed, and the circles of those found, [1 + 4 N]."""
        assert self._found is not None, 'there is no image yet'
        regions = self._found.regions
        numbers = np.concatenate([regions.centre_px, regions.top_px], axis=1)
        return np.concatenate([[self._followed_count], numbers.reshape(-1)])

    def replay(
        self, timed_view: TimedView, expected: People | None, found: People, memory: FloatArray
    ) -> None:
        """Update the search and the known people; see `PeopleFinder`."""
        image = timed_view.view.image
        expected = self._unless_resized(image, expected)
        ids, _ = self._expected_regions(expected)
        self._note_attempts(ids)
        turns = self._turns_until(timed_view.stamp_s)
        self._tiles_to_search(image, expected, turns)
        self._followed_count = int(memory[0])
        self._guess(self._followed_count, turns)
        numbers = memory[1:].reshape(-1, 4)
        self._found = PosedRegions(found, Regions(numbers[:, :2], numbers[:, 2:]))

    def _note_attempts(self, ids: NDArray[np.int64]) -> None:
        """Note who would be found if visible: those looked at, or everybody."""
        self.attempts = ALL_ATTEMPTED if self.detect_interval == 1 else Attempts(ids)

    def _unless_resized(self, image: ImageArray, expected: People | None) -> People | None:
        """Return the expected people; start anew and return None at an image of another size."""
        if image.shape == self._image_shape:
            return expected
        self.reset()
        self._image_shape = image.shape
        self._tiles = TileSearch(image.shape)
        return None

    def _expected_regions(self, expected: People | None) -> tuple[NDArray[np.int64], Regions]:
        """Return whom to look at, and where."""
        if expected is None:
            self._known = {}
            return np.zeros(0, np.int64), Regions.none()
        ids = expected.ids.tolist()
        # Others have been lost for too long.
        self._known = {who: self._known[who] for who in ids if who in self._known}
        looked_at = [
            i
            for i, who in enumerate(ids)
            if expected.in_view[i].any()
            and who in self._known
            and self._known[who].misses <= ATTEMPTS_AT_LOST
        ]
        return expected.ids[looked_at], self._moved_regions(expected, looked_at)

    def _moved_regions(self, expected: People, which: list[int]) -> Regions:
        known = [self._known[int(expected.ids[i])] for i in which]
        place_px = np.array([k.place_px for k in known]).reshape(-1, 2)
        centre_px = np.array([k.centre_px for k in known]).reshape(-1, 2)
        top_px = np.array([k.top_px for k in known]).reshape(-1, 2)
        depth_mm = np.array([k.depth_mm for k in known])
        now_px = expected.poses2d_px[which].mean(axis=1)
        now_mm = expected.poses3d_mm[which][..., 2].mean(axis=1)
        scale = np.clip(depth_mm / np.maximum(now_mm, 1.0), 0.5, 2.0)[:, None]
        moved_px = now_px + scale * (centre_px - place_px)
        return Regions(moved_px, moved_px + scale * (top_px - centre_px))

    def _follow(self, view: View, ids: NDArray[np.int64], regions: Regions) -> PosedRegions:
        seen = self._estimator.look(view.image, view.camera, regions)
        people = dataclasses.replace(seen.people, ids=ids)
        still_there = (
            (people.confidence > LEAST_PRESENCE)
            & is_confident(people, seen.regions.tilt_degrees(view.camera))
            & has_plausible_size(people)
        )
        return PosedRegions(people, seen.regions).select(still_there)

    def _meet(self, view: View, detections: Detections, followed: PosedRegions) -> PosedRegions:
        """Look at those who were detected and are not among the followed."""
        overlap = square_iou(detections.regions, followed.regions)
        known = overlap.max(axis=1, initial=0) > KNOWN_IOU
        candidates = detections.select(~known)
        if self._known and self.detect_interval != 1:
            surest = np.argsort(-candidates.scores, kind='stable')[:CANDIDATES_PER_FRAME]
            candidates = candidates.select(surest)
        return self._estimator.verify(view.image, view.camera, candidates)

    def _turns_until(self, stamp_s: float) -> float:
        """Return how much of a turn it is since the last frame, from 0 to 1."""
        step_s, self._stamp_s = stamp_s - self._stamp_s, stamp_s
        # Stamps that stand still tell nothing.
        return min(step_s / TURN_S, 1.0) if step_s > 0 else 1.0

    def _beside(self, followed: PosedRegions, turns: float) -> Detections:
        """Guess that somebody is beside one of the followed, each time beside another one."""
        count = len(followed.people)
        guesses = self._guess(count, turns)
        # To one side of everybody, then to the other.
        past, who = divmod(self._guesses_made, max(count, 1))
        return guess_neighbours(
            followed.regions.select(np.array([who] * guesses, int)), (-1) ** past
        )

    def _guess(self, count: int, turns: float) -> int:
        """Return how many guesses are due beside so many followed people, and count them."""
        guesses = min(self._guesses_due.take(GUESSES_PER_TURN * turns), count)
        self._guesses_made += guesses
        return guesses

    def _tiles_to_search(
        self, image: ImageArray, expected: People | None, turns: float
    ) -> list[Tile]:
        if expected is None:
            return self._tiles.everywhere(image)
        if self.detect_interval:
            return self._tiles.share(image, self.detect_interval)
        return self._tiles.promising(
            image, expected.boxes_px, self._tiles_of_lost(expected), turns
        )

    def _tiles_of_lost(self, expected: People) -> list[Tile]:
        """Return a tile around each of those whom the last frame missed."""
        lost = ~expected.seen & expected.in_view.any(axis=1)
        which = [i for i in np.flatnonzero(lost).tolist() if int(expected.ids[i]) in self._known]
        regions = self._moved_regions(expected, which)
        limit_px = np.array(self._image_shape[1::-1])
        # Of somebody at the edge a part is in view, though the middle may not be.
        centre_px = np.clip(regions.centre_px, 0, limit_px - 1)
        side_px = np.clip(LOST_TILE * regions.radius_px, SMALLEST_TILE_PX, limit_px.max())
        corner_px = centre_px - side_px[:, None] / 2
        return [
            Tile(round(left), round(top), round(side))
            for (left, top), side in zip(corner_px.tolist(), side_px.tolist())
        ]
