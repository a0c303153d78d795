"""A detector that is loaded when it is needed first."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metrabs_ros.arrays import ImageArray
    from metrabs_ros.camera import Camera
    from metrabs_ros.detectors.boxes import BoxDetector, Boxes
    from metrabs_ros.options import Options


class LateDetector:
    """
    Finds people by a detector that is loaded at the first look: who has boxes does without.

    Parameters
    ----------
    load
        Loads it.
    """

    def __init__(self, load: Callable[[], BoxDetector]) -> None:
        self._load = load
        self._detector: BoxDetector | None = None

    def __call__(self, image: ImageArray, camera: Camera, options: Options) -> Boxes:
        """Find people; see `BoxDetector`."""
        if self._detector is None:
            self._detector = self._load()
        return self._detector(image, camera, options)
