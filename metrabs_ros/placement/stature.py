"""Known stature as a cue of the person scale."""

from __future__ import annotations

import numpy as np

from metrabs_ros.arrays import BoolArray, FloatArray
from metrabs_ros.people import People
from metrabs_ros.placement.person_scale import Cue, ScaleObservations

STATURE_STD = 0.03
"""Relative standard deviation of the stature that the poses of a network imply."""
MIN_JOINT_CONFIDENCE = 0.5
MEASURED_PARTS = ('shoulder', 'hip', 'knee', 'ankle')


def observe_stature(implied_mm: FloatArray, stature_mm: float) -> ScaleObservations:
    """
    Return the scale factors at which the statures of people are the known one.

    Parameters
    ----------
    implied_mm
        [T], mean statures that the poses imply before scaling; NaN if unknown.
    stature_mm
        Known stature of all people.

    Returns
    -------
    Observations, [T, 1].
    """
    # The joints of a pose can be at the same position.
    known_mm = np.where(implied_mm > 0, implied_mm, np.nan)
    log_factor = np.log(stature_mm / known_mm)[:, None]
    return ScaleObservations(
        Cue.STATURE,
        log_factor,
        np.full(log_factor.shape, STATURE_STD),
        np.ones(log_factor.shape),
    )


def has_whole_body(people: People) -> BoolArray:
    """Return which people have all joints in view that their implied stature depends on, [N]."""
    joints = np.concatenate(
        [
            people.skeleton.part('nose'),
            *(
                people.skeleton.part(part, side)
                for part in MEASURED_PARTS
                for side in ('left', 'right')
            ),
        ]
    ).astype(np.intp)
    is_visible = people.joint_confidence[:, joints] > MIN_JOINT_CONFIDENCE
    return np.asarray((is_visible & people.in_view[:, joints]).all(axis=1))
