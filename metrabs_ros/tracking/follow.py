"""Following people from frame to frame, so that they need not be searched for again."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.crop.circles import Circles
from metrabs_ros.detectors.blazepose import (
    SMALLEST_TILE_PX,
    Detections,
    Tile,
    all_tiles,
    guess_neighbours,
    square_iou,
)
from metrabs_ros.estimator import Options, View
from metrabs_ros.estimators.blazepose import BlazePoseEstimator, Sighting
from metrabs_ros.people import UNKNOWN_ID, People
from metrabs_ros.plausibility import believable, convincing, distinct
from metrabs_ros.tracking.changes import Changes
from metrabs_ros.tracking.shot import Shot

LEAST_PRESENCE = 0.5
KNOWN_IOU = 0.6
FRAMES_PER_GUESS = 2
CANDIDATES_PER_FRAME = 3
TILES_PER_FRAME, TILES_WHEN_ALL_CHANGES = 2, 4
LOOKS_AT_LOST = 2
LOST_TILE = 3.0
"""How many times the radius of a lost person's circle the tile is that is searched for them."""
DEFAULT_OPTIONS = Options()


class Known(NamedTuple):
    """Where somebody was when last seen: the circle, what it went with, how often missed since."""

    centre_px: FloatArray
    rim_px: FloatArray
    place_px: FloatArray
    depth_mm: float
    misses: int


class PeopleFollower:
    """
    Finds people in a stream of images, on a budget.

    Known people are looked at where they are expected.  New ones are searched for in a few tiles
    of each frame: where somebody was lost, where a still camera's image has changed, and in turn
    everywhere.

    Parameters
    ----------
    estimator
        Finds people and their poses in a single image.
    options
        How to search for new ones; may be replaced from one image to the next.
    detect_interval
        In how many frames to search everywhere; 0 for two tiles a frame, four where everything
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
        self.forget()

    def forget(self) -> None:
        """Search everywhere in the next image."""
        self._known: dict[int, Known] = {}
        self._found: Sighting | None = None
        self._changes = Changes()
        self._tiles: list[Tile] = []
        self._turn = 0
        self._frames = 0
        self._image_shape: tuple[int, ...] = ()

    def __call__(self, shot: Shot, expected: People | None) -> People:
        """Find the people in the next image; see `PeopleFinder`."""
        image = shot.view.image
        if image.shape != self._image_shape:
            self.forget()
            self._image_shape = image.shape
            expected = None
            self._tiles = spread_out(all_tiles(image.shape))
        ids, circles = self._expected_circles(expected)
        # The two networks run side by side.
        detections = self._search.submit(
            self._estimator.detect, image, self._tiles_of_this_turn(shot, expected), self.options
        )
        followed = self._follow(shot.view, ids, circles)
        candidates = Detections.concatenate([detections.result(), self._beside(followed)])
        found = self._meet(shot.view, candidates, followed)
        together = Sighting.concatenate([followed, found])
        # Who is known already stays; of two known ones the longer known.
        known_since = -followed.people.ids.astype(np.float64)
        newcomers = found.people.confidence + known_since.min(initial=0) - 2
        seniority = np.concatenate([known_since, newcomers])
        self._found = together.select(distinct(together.people, seniority))
        return self._found.people

    def recognise(self, ids: NDArray[np.int64]) -> None:
        """Take note of who those just found are; see `PeopleFinder`."""
        assert self._found is not None
        people, circles = self._found.people, self._found.circles
        self._known = {
            who: known._replace(misses=known.misses + 1) for who, known in self._known.items()
        }
        places_px = people.poses2d_px.mean(axis=1)
        depths_mm = people.poses3d_mm[..., 2].mean(axis=1)
        for i, who in enumerate(ids.tolist()):
            if who != UNKNOWN_ID:
                self._known[who] = Known(
                    circles.centre_px[i], circles.rim_px[i], places_px[i], float(depths_mm[i]), 0
                )

    def _expected_circles(self, expected: People | None) -> tuple[NDArray[np.int64], Circles]:
        """Return whom to look at, and where."""
        if expected is None:
            self._known = {}
            return np.zeros(0, np.int64), Circles(np.zeros((0, 2)), np.zeros((0, 2)))
        ids = expected.ids.tolist()
        # Others have been lost for too long.
        self._known = {who: self._known[who] for who in ids if who in self._known}
        looked_at = [
            i
            for i, who in enumerate(ids)
            if expected.in_view[i].any()
            and who in self._known
            and self._known[who].misses <= LOOKS_AT_LOST
        ]
        return expected.ids[looked_at], self._moved_circles(expected, looked_at)

    def _moved_circles(self, expected: People, which: list[int]) -> Circles:
        known = [self._known[int(expected.ids[i])] for i in which]
        place_px = np.array([k.place_px for k in known]).reshape(-1, 2)
        centre_px = np.array([k.centre_px for k in known]).reshape(-1, 2)
        rim_px = np.array([k.rim_px for k in known]).reshape(-1, 2)
        depth_mm = np.array([k.depth_mm for k in known])
        now_px = expected.poses2d_px[which].mean(axis=1)
        now_mm = expected.poses3d_mm[which][..., 2].mean(axis=1)
        scale = np.clip(depth_mm / np.maximum(now_mm, 1.0), 0.5, 2.0)[:, None]
        moved_px = now_px + scale * (centre_px - place_px)
        return Circles(moved_px, moved_px + scale * (rim_px - centre_px))

    def _follow(self, view: View, ids: NDArray[np.int64], circles: Circles) -> Sighting:
        seen = self._estimator.look(view.image, view.camera, circles)
        people = dataclasses.replace(seen.people, ids=ids)
        still_there = (
            (people.confidence > LEAST_PRESENCE)
            & convincing(people, seen.circles.tilt_degrees(view.camera))
            & believable(people)
        )
        return Sighting(people, seen.circles).select(still_there)

    def _meet(self, view: View, detections: Detections, followed: Sighting) -> Sighting:
        """Look at those who were detected and are not among the followed."""
        overlap = square_iou(detections.circles, followed.circles)
        known = overlap.max(axis=1, initial=0) > KNOWN_IOU
        candidates = detections.select(~known)
        if self._known and self.detect_interval != 1:
            surest = np.argsort(-candidates.scores, kind='stable')[:CANDIDATES_PER_FRAME]
            candidates = candidates.select(surest)
        return self._estimator.believe(view.image, view.camera, candidates)

    def _beside(self, followed: Sighting) -> Detections:
        """Guess that somebody is beside one of the followed, each time beside another one."""
        self._frames += 1
        turn, rest = divmod(self._frames, FRAMES_PER_GUESS)
        count = len(followed.people) if rest == 0 else 0
        who = np.array([turn // 2 % count] if count else [], int)
        return guess_neighbours(followed.circles.select(who), side=(-1) ** turn)

    def _tiles_of_this_turn(self, shot: Shot, expected: People | None) -> list[Tile]:
        boxes_px = np.zeros((0, 4)) if expected is None else expected.boxes_px
        changed = self._changes(shot.view.image, boxes_px)
        if expected is None:
            return self._tiles
        if self.detect_interval:
            return self._next_tiles(-(-len(self._tiles) // self.detect_interval))
        if changed is None:
            return self._next_tiles(TILES_WHEN_ALL_CHANGES)
        chosen = self._tiles_of_lost(expected)[:1]
        # One after the other: the largest may be a tree in the wind.
        chosen += changed[self._frames % min(len(changed), 3) :][:1] if changed else []
        return chosen + self._next_tiles(max(1, TILES_PER_FRAME - len(chosen)))

    def _next_tiles(self, count: int) -> list[Tile]:
        count = min(count, len(self._tiles))
        turn = [self._tiles[(self._turn + i) % len(self._tiles)] for i in range(count)]
        self._turn = (self._turn + count) % len(self._tiles)
        return turn

    def _tiles_of_lost(self, expected: People) -> list[Tile]:
        """Return a tile around each of those whom the last frame missed, one after the other."""
        lost = ~expected.seen & expected.in_view.any(axis=1)
        which = [i for i in np.flatnonzero(lost).tolist() if int(expected.ids[i]) in self._known]
        turn = np.roll(np.array(which, np.intp), -self._frames)
        circles = self._moved_circles(expected, turn.tolist())
        limit_px = np.array(self._image_shape[1::-1])
        # Of somebody at the edge a part is in view, though the middle may not be.
        centre_px = np.clip(circles.centre_px, 0, limit_px - 1)
        side_px = np.clip(LOST_TILE * circles.radius_px, SMALLEST_TILE_PX, limit_px.max())
        corner_px = centre_px - side_px[:, None] / 2
        return [
            Tile(round(left), round(top), round(side))
            for (left, top), side in zip(corner_px.tolist(), side_px.tolist())
        ]


def spread_out(tiles: list[Tile]) -> list[Tile]:
    """Order tiles so that those in a row lie far apart and each size has its turn early."""
    # The golden ratio's multiples, modulo 1, fill an interval evenly at every length.
    turns = np.argsort((np.arange(len(tiles)) * 0.6180339887498949) % 1, kind='stable')
    return [tiles[i] for i in turns]
