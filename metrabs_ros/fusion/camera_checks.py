"""
Checks of whether the poses of the cameras fit each other.

A camera whose extrinsics are wrong sees people where the others do not see them.  It is recognised
in two ways.  If the error is small, its detections match tracks, but with larger residuals than
those of other cameras.  If it is large, they match no track, although tracks that several other
cameras see would be in its image.
"""

from __future__ import annotations

import statistics

import numpy as np
from numpy.typing import NDArray

from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import Camera

TIME_CONSTANT_S = 1.0
MIN_OBSERVED_S = 0.7
"""Time of observation from which a camera can be excluded."""
MAX_OFFSET_MM, GOOD_OFFSET_MM = 100.0, 70.0
"""Lateral offset of persons at which a camera is excluded, and at which it is used again."""
MIN_OFFSET_RATIO = 1.7
"""An excluded camera has an offset larger by this factor than the median of the others."""
MAX_MISMATCH, GOOD_MISMATCH = 0.7, 0.3
"""Share of tracks without a match at which a camera is excluded, and used again."""
SAME_PLACE_MM, SAME_ROTATION, SAME_FOCAL = 5.0, 2e-3, 1e-3
"""Two cameras with smaller differences are one camera that is listed twice."""


class CameraChecks:
    """Running means of how well C cameras agree with the tracks of the others."""

    def __init__(self) -> None:
        empty = np.zeros(0)
        self._offset_mm, self._offset_s = empty, empty
        self._mismatch, self._mismatch_s = empty, empty
        self._excluded = np.zeros(0, bool)
        self.reprojection_px: FloatArray = empty
        """[C], running means of the median reprojection errors; 0 if unknown."""

    def add_camera(self) -> None:
        """Append a camera."""
        for name, values in vars(self).items():
            setattr(self, name, np.append(values, np.zeros(1, values.dtype)))

    def add_offsets(
        self,
        camera: NDArray[np.intp],
        offset_mm: FloatArray,
        reprojection_px: FloatArray,
        step_s: float,
    ) -> None:
        """
        Add offsets of persons that several cameras see.

        Parameters
        ----------
        camera
            [K], indices of cameras.
        offset_mm
            [K], distances across the line of sight between a camera's view of a person and the
            estimate of all cameras.
        reprojection_px
            [K], median reprojection errors.
        step_s
            Time since the last frame set.
        """
        for c in set(camera.tolist()):
            own = camera == c
            gain = _gain(step_s, self._offset_s[c])
            self._offset_s[c] += step_s
            change_mm = statistics.median(offset_mm[own].tolist()) - self._offset_mm[c]
            self._offset_mm[c] += gain * change_mm
            change_px = statistics.median(reprojection_px[own].tolist()) - self.reprojection_px[c]
            self.reprojection_px[c] += gain * change_px

    def add_matches(self, camera: int, matched: float, step_s: float) -> None:
        """Add the share of the tracks in the image of a camera that its detections match."""
        gain = _gain(step_s, self._mismatch_s[camera])
        self._mismatch_s[camera] += step_s
        self._mismatch[camera] += gain * (1 - matched - self._mismatch[camera])

    def reasons(self) -> list[str]:
        """Return for each camera why it is excluded, [C]; empty if it is not."""
        result = []
        offsets_mm, known = self._offset_mm.tolist(), (self._offset_s > 0).tolist()
        for c in range(len(known)):
            others_mm = [offsets_mm[k] for k in range(len(known)) if k != c and known[k]]
            typical_mm = statistics.median(others_mm) if others_mm else 0.0
            limit_mm = GOOD_OFFSET_MM if self._excluded[c] else MAX_OFFSET_MM
            is_off = self._offset_s[c] >= MIN_OBSERVED_S and self._offset_mm[c] > max(
                limit_mm, MIN_OFFSET_RATIO * typical_mm
            )
            limit = GOOD_MISMATCH if self._excluded[c] else MAX_MISMATCH
            misses = self._mismatch_s[c] >= MIN_OBSERVED_S and self._mismatch[c] > limit
            # Two cameras that contradict each other may equally be wrong.
            is_off &= len(others_mm) > 1
            self._excluded[c] = is_off or misses
            reason = ''
            if misses:
                reason = (
                    f'of the people that others see in its image, it misses '
                    f'{100 * self._mismatch[c]:.0f} %; check its extrinsic calibration'
                )
            elif is_off:
                reason = (
                    f'it sees people {self._offset_mm[c]:.0f} mm away from where the others see '
                    'them; check its extrinsic calibration'
                )
            result.append(reason)
        return result


def _gain(step_s: float, observed_s: float) -> float:
    """Return the gain of a running mean, which starts as the mean of all values."""
    return min(1.0, step_s / min(observed_s + step_s, TIME_CONSTANT_S)) if step_s > 0 else 1.0


def find_twice_listed(cameras: dict[str, Camera]) -> dict[str, str]:
    """Return the names of cameras with the pose and lens of an earlier one, and its name."""
    found: dict[str, str] = {}
    names = list(cameras)
    for i, name in enumerate(names):
        for earlier in names[:i]:
            if earlier not in found and _are_same(cameras[name], cameras[earlier]):
                found[name] = earlier
                break
    return found


def are_equal_views(one: Camera, other: Camera) -> bool:
    """Return whether two cameras have exactly the same pose and intrinsics."""
    return np.array_equal(one.extrinsic_matrix, other.extrinsic_matrix) and np.array_equal(
        one.intrinsic_matrix, other.intrinsic_matrix
    )


def _are_same(one: Camera, other: Camera) -> bool:
    apart_mm = np.abs(one.position_mm - other.position_mm).max()
    turned = np.abs(one.extrinsic_matrix[:3, :3] - other.extrinsic_matrix[:3, :3]).max()
    if apart_mm > SAME_PLACE_MM or turned > SAME_ROTATION:
        return False
    own, others = one.intrinsic_matrix, other.intrinsic_matrix
    return bool(np.abs(own - others).max() < SAME_FOCAL * own[0, 0])
