"""Following people from frame to frame, so that they need not be searched for again."""

from __future__ import annotations

import concurrent.futures
import dataclasses

import numpy as np

from metrabs_ros.arrays import ImageArray
from metrabs_ros.camera import Camera
from metrabs_ros.crop.circles import Circles
from metrabs_ros.detectors.blazepose import (
    Detections,
    Tile,
    all_tiles,
    guess_neighbours,
    square_iou,
)
from metrabs_ros.estimator import Options
from metrabs_ros.estimators.blazepose import BlazePoseEstimator, Sighting
from metrabs_ros.people import UNKNOWN_ID, People
from metrabs_ros.plausibility import believable, convincing, distinct

LEAST_PRESENCE = 0.5
KNOWN_IOU = 0.6
FRAMES_PER_GUESS = 2
CANDIDATES_PER_FRAME = 3
DEFAULT_OPTIONS = Options()


class PeopleFollower:
    """
    Finds people in a stream of images, on a budget.

    People of the last frame are looked for where their own poses say that they are.  New ones are
    searched for in a few tiles of each frame, so that after some frames all have had their turn.

    Parameters
    ----------
    estimator
        Finds people and their poses in a single image.
    options
        How to search for new ones; may be replaced from one image to the next.
    tiles_per_frame
        How many tiles to search in each frame for new people; the first frame is searched whole.
    """

    def __init__(
        self,
        estimator: BlazePoseEstimator,
        options: Options = DEFAULT_OPTIONS,
        tiles_per_frame: int = 2,
    ) -> None:
        self.options = options
        self._estimator = estimator
        self._tiles_per_frame = tiles_per_frame
        self._search = concurrent.futures.ThreadPoolExecutor(1, 'search')
        self._next_id = 1
        self.forget()

    def forget(self) -> None:
        """Lose sight of everybody; who is found from now on gets a new id."""
        self._known: Sighting | None = None
        self._tiles: list[Tile] = []
        self._turn = 0
        self._frames = 0
        self._image_shape: tuple[int, ...] = ()

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
        People with ids, in the network's own skeleton, camera frame.
        """
        if image.shape != self._image_shape:
            self.forget()
            self._image_shape = image.shape
            self._tiles = spread_out(all_tiles(image.shape))
        # The two networks run side by side.
        detections = self._search.submit(
            self._estimator.detect, image, self._tiles_of_this_turn(), self.options
        )
        followed = self._follow(image, camera)
        candidates = Detections.concatenate([detections.result(), self._beside(followed)])
        found = self._meet(image, camera, candidates, followed)
        together = Sighting.concatenate([followed, found])
        # Who is known already stays; of two known ones the longer known.
        known_since = -followed.people.ids.astype(np.float64)
        newcomers = found.people.confidence - self._next_id - 1
        seniority = np.concatenate([known_since, newcomers])
        together = together.select(distinct(together.people, seniority))
        self._known = self._with_ids(together)
        return self._known.people

    def _follow(self, image: ImageArray, camera: Camera) -> Sighting:
        known = self._known
        if known is None:
            nobody = Circles(np.zeros((0, 2)), np.zeros((0, 2)))
            return self._estimator.look(image, camera, nobody)
        seen = self._estimator.look(image, camera, known.circles)
        people = dataclasses.replace(seen.people, ids=known.people.ids)
        still_there = (
            (people.confidence > LEAST_PRESENCE)
            & convincing(people, seen.circles.tilt_degrees(camera))
            & believable(people)
        )
        return Sighting(people, seen.circles).select(still_there)

    def _meet(
        self, image: ImageArray, camera: Camera, detections: Detections, followed: Sighting
    ) -> Sighting:
        """Look at those who were detected and are not among the followed."""
        overlap = square_iou(detections.circles, followed.circles)
        known = overlap.max(axis=1, initial=0) > KNOWN_IOU
        candidates = detections.select(~known)
        if self._known is not None:
            surest = np.argsort(-candidates.scores, kind='stable')[:CANDIDATES_PER_FRAME]
            candidates = candidates.select(surest)
        return self._estimator.believe(image, camera, candidates)

    def _beside(self, followed: Sighting) -> Detections:
        """Guess that somebody is beside one of the followed, each time beside another one."""
        self._frames += 1
        turn, rest = divmod(self._frames, FRAMES_PER_GUESS)
        count = len(followed.people) if rest == 0 else 0
        who = np.array([turn // 2 % count] if count else [], int)
        return guess_neighbours(followed.circles.select(who), side=(-1) ** turn)

    def _tiles_of_this_turn(self) -> list[Tile]:
        if self._known is None:
            return self._tiles
        count = min(self._tiles_per_frame, len(self._tiles))
        turn = [self._tiles[(self._turn + i) % len(self._tiles)] for i in range(count)]
        self._turn = (self._turn + count) % len(self._tiles)
        return turn

    def _with_ids(self, sighting: Sighting) -> Sighting:
        ids = sighting.people.ids.copy()
        new = np.flatnonzero(ids == UNKNOWN_ID)
        ids[new] = self._next_id + np.arange(len(new))
        self._next_id += len(new)
        return Sighting(dataclasses.replace(sighting.people, ids=ids), sighting.circles)


def spread_out(tiles: list[Tile]) -> list[Tile]:
    """Order tiles so that those in a row lie far apart and each size has its turn early."""
    # The golden ratio's multiples, modulo 1, fill an interval evenly at every length.
    turns = np.argsort((np.arange(len(tiles)) * 0.6180339887498949) % 1, kind='stable')
    return [tiles[i] for i in turns]
