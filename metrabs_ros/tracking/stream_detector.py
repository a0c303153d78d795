"""The interface of detectors that use the tracks of one camera to find its people faster."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.options import Options
from metrabs_ros.people import People
from metrabs_ros.tracking.detection_history import Attempts
from metrabs_ros.tracking.timed_view import TimedView


class StreamDetector(Protocol):
    """
    Detects the people in the successive images of one camera.

    Parameters
    ----------
    options
        Options of detection and pose estimation; may be replaced between two images.
    detect_interval
        Run full-image detection every N frames; 0: default of the model.
    attempts
        Tracks that the last image was examined for.
    """

    options: Options
    detect_interval: int
    attempts: Attempts

    def detect(self, timed_view: TimedView, predicted: People | None) -> People:
        """
        Detect the people in the next image.

        Parameters
        ----------
        timed_view
            The image.
        predicted
            State of the tracks at the time of the image, by `Tracker.predict`.
        """
        ...

    def assign_ids(self, ids: NDArray[np.int64]) -> None:
        """Take the track ids [N] of the people detected last, each an id or UNKNOWN_ID."""
        ...

    def state(self) -> FloatArray:
        """Return the state that `replay` needs in addition to the last detections, [M]."""
        ...

    def replay(
        self,
        timed_view: TimedView,
        predicted: People | None,
        detected: People,
        state: FloatArray,
    ) -> None:
        """
        Update the state from the recorded result of `detect`, without running the networks.

        Detections in the following images are then the same as after `detect`.

        Parameters
        ----------
        timed_view, predicted
            Arguments of `detect`.
        detected
            Result of `detect`.
        state
            Result of `state` after that.
        """
        ...

    def reset(self) -> None:
        """Run full-image detection in the next image."""
        ...
