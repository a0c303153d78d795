"""Calibrated camera: intrinsics, lens distortion and pose in the world frame."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from metrabs_ros.arrays import FloatArray
from metrabs_ros.foreign_text import printable

if TYPE_CHECKING:
    import torch

Coordinate = TypeVar('Coordinate', FloatArray, 'torch.Tensor')

DISTORTION_COEFF_COUNTS = (0, 4, 5, 8, 12)
"""Supported numbers of OpenCV coefficients (k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4)."""

DEFAULT_UP = (0.0, -1.0, 0.0)
FISHEYE_COEFF_COUNTS = (0, 4)
MIN_DEPTH_MM = 1.0

# These limits are far outside the range of real cameras, and tight enough that no computation
# overflows: the rational lens model uses the sixth power of image coordinates, and its derivative
# the twelfth.
MIN_FOCAL_PX, MAX_FOCAL_PX = 1e-3, 1e7
MAX_FOCAL_RATIO = 1e3
MAX_PRINCIPAL_POINT_PX = 1e7
MAX_DISTORTION_COEFF = 1e12
MAX_ROTATION_ENTRY = 1e6
MAX_TRANSLATION_MM = 1e13
MIN_DETERMINANT = 1e-9
LAST_ROW_TOLERANCE = 1e-9
MIN_DENOMINATOR = 1e-12
MAX_FIELD_RADIUS, MAX_DISTORTED_RADIUS = 100.0, 1000.0
"""Limits of the field of a lens on the plane at depth 1: before and after distortion."""
MIN_FIELD_RADIUS = 1e-7
FIELD_GRID_SIZE, FIELD_REFINEMENTS = 1000, 4
KEPT_FIELDS = 32
"""Number of lenses whose field is kept for the next frame."""
MAX_SHOWN_CHARS = 200
MAX_SHOWN_VALUES = 16


@dataclasses.dataclass(frozen=True)
class Camera:
    """
    Intrinsics, lens model and pose of one camera.

    Camera coordinates are those of the optical frame: x right, y down, z forward, in millimetres.
    Pixel coordinates have integers at pixel centres.

    Parameters
    ----------
    intrinsic_matrix
        [3, 3], pixels.
    distortion_coeffs
        0, 4, 5, 8 or 12 coefficients in OpenCV's order k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4; for a
        fisheye lens 0 or 4 coefficients k1 k2 k3 k4.
    extrinsic_matrix
        [4, 4], transforms world coordinates to camera coordinates, both in millimetres.
    world_up_vector
        [3], up direction in world coordinates.  The default is correct for a level camera and a
        world frame that is the optical frame of the camera.
    fisheye
        Use the equidistant lens model: the distance of an image point from the image centre
        depends on the angle between ray and optical axis, up to 180 degrees of view and beyond
        (Kannala and Brandt, 2006).

    Raises
    ------
    ValueError
        If an argument has the wrong shape, contains a value that is not finite, or does not
        describe a camera (focal length out of range, singular matrix).
    """

    intrinsic_matrix: FloatArray
    distortion_coeffs: FloatArray = dataclasses.field(default_factory=lambda: np.zeros(0))
    extrinsic_matrix: FloatArray = dataclasses.field(default_factory=lambda: np.eye(4))
    world_up_vector: FloatArray = dataclasses.field(default_factory=lambda: np.array(DEFAULT_UP))
    fisheye: bool = False

    def __post_init__(self) -> None:
        """Convert the arguments to float64 arrays, which cannot be modified, and check them."""
        arrays = {
            'intrinsic_matrix': _checked_intrinsics(self.intrinsic_matrix),
            'distortion_coeffs': _checked_coeffs(self.distortion_coeffs, self.fisheye),
            'extrinsic_matrix': _checked_extrinsics(self.extrinsic_matrix),
            'world_up_vector': _unit_up(self.world_up_vector),
        }
        for name, array in arrays.items():
            object.__setattr__(self, name, _read_only(array))

    @classmethod
    def from_fov(cls, fov_degrees: float, image_shape: tuple[int, ...], **kwargs: Any) -> Camera:
        """
        Create an uncalibrated camera from the field of view along the longer image side.

        Parameters
        ----------
        fov_degrees
            Field of view, more than 0 and less than 180.
        image_shape
            Height and width in pixels, further entries are ignored.
        kwargs
            The other fields of `Camera`.

        Raises
        ------
        ValueError
            If no pinhole camera has this field of view.
        """
        return cls(intrinsics_from_fov(fov_degrees, image_shape), **kwargs)

    @property
    def up(self) -> FloatArray:
        """Up direction of the world in camera coordinates, [3], unit length."""
        up = self.extrinsic_matrix[:3, :3] @ self.world_up_vector
        return up / np.linalg.norm(up)

    def project(self, points_mm: FloatArray) -> FloatArray:
        """
        Project camera-frame points [..., 3] to pixels [..., 2].

        For lenses other than fisheye, points with a depth of less than one millimetre are
        projected as if their depth were one millimetre, so that the result is always finite.

        A lens model folds the plane beyond some angle to the optical axis, its field: points
        outside of it would be projected into the image.  The projection continues linearly there.
        """
        if self.fisheye:
            points = project_equidistant(points_mm, self.distortion_coeffs)
        else:
            depth = np.maximum(points_mm[..., 2:], MIN_DEPTH_MM)
            points = _distort_in_field(points_mm[..., :2] / depth, self.distortion_coeffs)
        return points @ self.intrinsic_matrix[:2, :2].T + self.intrinsic_matrix[:2, 2]

    def unproject(self, points_px: FloatArray) -> FloatArray:
        """
        Return the rays through pixels, in the camera frame.

        Parameters
        ----------
        points_px
            [..., 2], image pixels.

        Returns
        -------
        [..., 3]: (x, y, 1), or unit vectors for a fisheye lens.
        """
        inverse = self._pixels_to_plane
        points: FloatArray = points_px @ inverse[:2, :2].T + inverse[:2, 2]
        if self.fisheye:
            return unproject_equidistant(points, self.distortion_coeffs)
        points = undistort(points, self.distortion_coeffs)
        return np.concatenate([points, np.ones_like(points[..., :1])], axis=-1)

    def from_world(self, points_mm: FloatArray) -> FloatArray:
        """Transform world-frame points [..., 3] to the camera frame, both in millimetres."""
        return points_mm @ self.extrinsic_matrix[:3, :3].T + self.extrinsic_matrix[:3, 3]

    def to_world(self, points_mm: FloatArray) -> FloatArray:
        """Transform camera-frame points [..., 3] to the world frame, both in millimetres."""
        return points_mm @ self._camera_to_world[:3, :3].T + self._camera_to_world[:3, 3]

    @property
    def position_mm(self) -> FloatArray:
        """Position of the camera in the world frame, [3], millimetres."""
        return self._camera_to_world[:3, 3]

    @property
    def rotation_to_world(self) -> FloatArray:
        """Rotation [3, 3] of directions in the camera frame to the world frame."""
        return self._camera_to_world[:3, :3]

    @functools.cached_property
    def _pixels_to_plane(self) -> FloatArray:
        return _read_only(np.linalg.inv(self.intrinsic_matrix))

    @functools.cached_property
    def _camera_to_world(self) -> FloatArray:
        return _read_only(np.linalg.inv(self.extrinsic_matrix))


def intrinsics_from_fov(fov_degrees: float, image_shape: tuple[int, ...]) -> FloatArray:
    """Return the intrinsic matrix [3, 3] for a field of view; see `Camera.from_fov`."""
    if not 0 < fov_degrees < 180:
        raise ValueError(
            f'default_fov_degrees is {fov_degrees}; the field of view of a pinhole camera must be '
            'more than 0 and less than 180 degrees'
        )
    height, width = image_shape[:2]
    # The smallest positive angles underflow to 0.
    tangent = math.tan(math.radians(fov_degrees) / 2) or 1e-300
    focal_px = max(height, width) / (2 * tangent)
    if not MIN_FOCAL_PX <= focal_px <= MAX_FOCAL_PX:
        raise ValueError(
            f'default_fov_degrees is {fov_degrees}, a focal length of {focal_px:g} pixels '
            f'in an image of {width} x {height}; it must be from {MIN_FOCAL_PX:g} to '
            f'{MAX_FOCAL_PX:g} pixels'
        )
    return np.array([[focal_px, 0, width / 2], [0, focal_px, height / 2], [0, 0, 1]])


def distort(points: FloatArray, coeffs: FloatArray) -> FloatArray:
    """
    Apply OpenCV's lens model to normalised image points.

    Parameters
    ----------
    points
        [..., 2], on the plane at depth 1.
    coeffs
        Up to 12 coefficients: k1 k2 p1 p2 k3 k4 k5 k6 s1 s2 s3 s4.

    Returns
    -------
    [..., 2]
    """
    if not len(coeffs):
        return points
    return np.stack(distort_xy(points[..., 0], points[..., 1], coeffs), axis=-1)


def distort_xy(x: Coordinate, y: Coordinate, coeffs: FloatArray) -> tuple[Coordinate, Coordinate]:
    """Apply the lens model of `distort` to arrays or tensors of coordinates."""
    radial, shift_x, shift_y = _radial_and_shift(x, y, coeffs)
    return x * radial + shift_x, y * radial + shift_y


def _radial_and_shift(
    x: Coordinate, y: Coordinate, coeffs: FloatArray
) -> tuple[Coordinate, Coordinate, Coordinate]:
    """Return the radial factor, and the tangential and thin-prism shifts in x and y."""
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = _all_coeffs(coeffs)
    xx, yy, xy = x * x, y * y, x * y
    r2 = xx + yy
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    shift_x = 2 * p1 * xy + p2 * (r2 + 2 * xx)
    shift_y = 2 * p2 * xy + p1 * (r2 + 2 * yy)
    # Most lenses lack these terms; they are skipped because whole crops are computed here.
    if k4 or k5 or k6:
        radial = radial / _replace_zeros(1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    if s1 or s2 or s3 or s4:
        shift_x = shift_x + r2 * (s1 + s2 * r2)
        shift_y = shift_y + r2 * (s3 + s4 * r2)
    return radial, shift_x, shift_y


def _replace_zeros(denominator: Coordinate) -> Coordinate:
    """Replace zeros, which occur at the poles of a rational lens model, by a small number."""
    return denominator + (denominator == 0) * MIN_DENOMINATOR


def _distort_in_field(points: FloatArray, coeffs: FloatArray) -> FloatArray:
    """Apply `distort` to points [..., 2] in the field of the lens, and continue it linearly."""
    if not len(coeffs):
        return points
    limit = _radial_field(tuple(coeffs.tolist()))[0][-1]
    radius = np.linalg.norm(points, axis=-1, keepdims=True)
    if not (radius > limit).any():
        return distort(points, coeffs)
    inside = points * (limit / np.maximum(radius, limit))
    return distort(inside, coeffs) + (points - inside)


@functools.lru_cache(KEPT_FIELDS)
def _radial_field(coeffs: tuple[float, ...]) -> tuple[FloatArray, FloatArray]:
    """
    Return increasing radii in the field of a lens, on the plane at depth 1, [F].

    Parameters
    ----------
    coeffs
        Coefficients of `distort`.

    Returns
    -------
    The radii before and after the distortion.
    """

    def distorted(radii: FloatArray) -> FloatArray:
        radial, _, _ = _radial_and_shift(radii, np.zeros_like(radii), np.array(coeffs))
        return radii * radial

    grid = np.geomspace(MIN_FIELD_RADIUS, MAX_FIELD_RADIUS, FIELD_GRID_SIZE)
    limit = _last_increasing(distorted, grid)
    radii = np.append(0, np.geomspace(limit * MIN_FIELD_RADIUS, limit, FIELD_GRID_SIZE))
    return radii, distorted(radii)


@functools.lru_cache(KEPT_FIELDS)
def _equidistant_field(coeffs: tuple[float, ...]) -> tuple[FloatArray, FloatArray]:
    """Return increasing angles in the field of a fisheye lens, and their image radii, [F] each."""

    def radius(angles: FloatArray) -> FloatArray:
        return _equidistant_polynomial(angles, coeffs)

    limit = _last_increasing(radius, np.linspace(0, np.pi, FIELD_GRID_SIZE))
    angles = np.linspace(0, limit, FIELD_GRID_SIZE)
    return angles, radius(angles)


def _last_increasing(function: Callable[[FloatArray], FloatArray], grid: FloatArray) -> float:
    """Return the last value of an increasing grid up to which a function increases, refined."""
    for _ in range(FIELD_REFINEMENTS):
        values = function(grid)
        is_wrong = (np.diff(values) <= 0) | ~(values[1:] <= MAX_DISTORTED_RADIUS)
        if not is_wrong.any():
            return float(grid[-1])
        last = int(is_wrong.argmax())
        grid = np.linspace(grid[max(last - 1, 0)], grid[last + 1], FIELD_GRID_SIZE)
    return float(grid[0])


def _all_coeffs(coeffs: FloatArray) -> list[float]:
    return np.pad(coeffs, (0, 12 - len(coeffs))).tolist()


def undistort(points: FloatArray, coeffs: FloatArray, max_steps: int = 30) -> FloatArray:
    """
    Invert `distort` by Newton's method.

    Points outside the image of the lens (a strong barrel lens has a maximum radius) result in the
    nearest point found by the iteration, never in NaN.

    Parameters
    ----------
    points
        [..., 2], distorted, on the plane at depth 1.
    coeffs
        As in `distort`.
    max_steps
        Maximum number of iterations; the iteration stops when the error is below 1e-12.

    Returns
    -------
    [..., 2]
    """
    if not len(coeffs):
        return points
    radius = np.linalg.norm(points, axis=-1, keepdims=True)
    radii, distorted = _radial_field(tuple(coeffs.tolist()))
    # The distorted points themselves may be outside of the field, from where Newton's method does
    # not find the way back.
    guess = points * (np.interp(radius, distorted, radii) / np.maximum(radius, 1e-12))
    error = distort(guess, coeffs) - points
    for _ in range(max_steps):
        if not np.abs(error).max(initial=0) > 1e-12:
            break
        step = np.linalg.solve(
            _replace_singular(_distortion_jacobian(guess, coeffs)), error[..., None]
        )
        # Limit the step length: far from the current point the polynomial is not invertible.
        length = np.linalg.norm(step[..., 0], axis=-1, keepdims=True)
        limit = 0.5 * (0.1 + np.linalg.norm(guess, axis=-1, keepdims=True))
        candidate = guess - step[..., 0] * np.minimum(1, limit / np.maximum(length, 1e-12))
        candidate_error = distort(candidate, coeffs) - points
        better = np.linalg.norm(candidate_error, axis=-1) < np.linalg.norm(error, axis=-1)
        if not better.any():
            break
        guess = np.where(better[..., None], candidate, guess)
        error = np.where(better[..., None], candidate_error, error)
    return guess


def undistort_by_fixed_point(points: FloatArray, coeffs: FloatArray, steps: int = 5) -> FloatArray:
    """
    Invert `distort` approximately, by a fixed number of fixed-point steps.

    The published networks were trained with this approximation.  Boxes near the edge of a strong
    lens must have the same error here.

    Parameters
    ----------
    points
        [..., 2], distorted, on the plane at depth 1.
    coeffs
        As in `distort`.
    steps
        Number of fixed-point steps.

    Returns
    -------
    [..., 2]; not finite where the iteration diverges.
    """
    if not len(coeffs):
        return points
    x, y = points[..., 0], points[..., 1]
    with np.errstate(over='ignore', invalid='ignore', divide='ignore'):
        for _ in range(steps):
            radial, shift_x, shift_y = _radial_and_shift(x, y, coeffs)
            x, y = (points[..., 0] - shift_x) / radial, (points[..., 1] - shift_y) / radial
    return np.stack([x, y], axis=-1)


def equidistant_radius(angle: Coordinate, coeffs: FloatArray) -> Coordinate:
    """
    Return the distance from the image centre for an angle to the optical axis, in radians.

    The model continues linearly beyond the angle up to which its radius increases.
    """
    values = tuple(coeffs.tolist())
    inside = angle.clip(max=float(_equidistant_field(values)[0][-1]))
    return _equidistant_polynomial(inside, values) + (angle - inside)


def _equidistant_polynomial(angle: Coordinate, coeffs: tuple[float, ...]) -> Coordinate:
    k1, k2, k3, k4 = coeffs
    square = angle * angle
    return angle * (1 + square * (k1 + square * (k2 + square * (k3 + square * k4))))


def project_equidistant(points: FloatArray, coeffs: FloatArray) -> FloatArray:
    """
    Project points with the equidistant fisheye model.

    Parameters
    ----------
    points
        [..., 3], camera frame, any unit.
    coeffs
        [4], k1 k2 k3 k4.

    Returns
    -------
    [..., 2], on the image plane of focal length 1.
    """
    across = np.linalg.norm(points[..., :2], axis=-1, keepdims=True)
    angle = np.arctan2(across, points[..., 2:])
    return points[..., :2] * equidistant_radius(angle, coeffs) / np.maximum(across, 1e-12)


def unproject_equidistant(points: FloatArray, coeffs: FloatArray, steps: int = 20) -> FloatArray:
    """
    Invert `project_equidistant` by Newton's method.

    Parameters
    ----------
    points
        [..., 2], on the image plane of focal length 1.
    coeffs
        [4], k1 k2 k3 k4.
    steps
        Number of iterations.

    Returns
    -------
    [..., 3], rays of unit length in the field of the lens; for points outside of its image the
    nearest ones.
    """
    angles, radii = _equidistant_field(tuple(coeffs.tolist()))
    radius = np.linalg.norm(points, axis=-1, keepdims=True)
    factors = np.concatenate([[1.0], coeffs]) * (1, 3, 5, 7, 9)
    angle = np.interp(radius, radii, angles)
    for _ in range(steps):
        slope = np.polynomial.polynomial.polyval(angle**2, factors)
        # The slope may be small near the edge of the field.
        step = (equidistant_radius(angle, coeffs) - radius) / np.maximum(slope, 0.1)
        angle = np.clip(angle - np.clip(step, -0.5, 0.5), 0, angles[-1])
    sideways = points * np.sin(angle) / np.maximum(radius, 1e-12)
    return np.concatenate([sideways, np.cos(angle)], axis=-1)


def _distortion_jacobian(points: FloatArray, coeffs: FloatArray) -> FloatArray:
    """Return the derivative [..., 2, 2] of `distort` at points [..., 2]."""
    k1, k2, p1, p2, k3, k4, k5, k6, s1, s2, s3, s4 = _all_coeffs(coeffs)
    x, y = points[..., 0], points[..., 1]
    r2 = x * x + y * y
    above = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    below = _replace_zeros(1 + r2 * (k4 + r2 * (k5 + r2 * k6)))
    radial = above / below
    slope = (
        (k1 + r2 * (2 * k2 + r2 * 3 * k3)) * below - above * (k4 + r2 * (2 * k5 + r2 * 3 * k6))
    ) / (below * below)
    prism_x, prism_y = s1 + 2 * s2 * r2, s3 + 2 * s4 * r2
    shared = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    dxdx = radial + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x + 2 * x * prism_x
    dydy = radial + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x + 2 * y * prism_y
    return np.stack(
        [
            np.stack([dxdx, shared + 2 * y * prism_x], axis=-1),
            np.stack([shared + 2 * x * prism_y, dydy], axis=-1),
        ],
        axis=-2,
    )


def _replace_singular(matrices: FloatArray) -> FloatArray:
    """Replace singular matrices [..., 2, 2] by the identity."""
    usable = np.abs(np.linalg.det(matrices)) > 1e-6
    return np.where(usable[..., None, None], matrices, np.eye(2))


def _read_only(array: FloatArray) -> FloatArray:
    """Return a copy that cannot be modified: the inverses of a camera's matrices are cached."""
    copied = array.copy()
    copied.flags.writeable = False
    return copied


def _checked_intrinsics(value: ArrayLike) -> FloatArray:
    """Return a valid intrinsic matrix [3, 3]; raises the errors of `Camera`."""
    matrix = _as_finite('intrinsic_matrix', value, (3, 3))
    ((fx, skew, cx), (below, fy, cy), last) = matrix.tolist()
    if min(fx, fy) <= 0:
        raise ValueError(
            f'intrinsic_matrix has focal lengths {fx:g} and {fy:g}; both must be greater than 0'
        )
    if min(fx, fy) < MIN_FOCAL_PX or max(fx, fy) > MAX_FOCAL_PX:
        raise ValueError(
            f'intrinsic_matrix has focal lengths {fx:g} and {fy:g}; both must be from '
            f'{MIN_FOCAL_PX:g} to {MAX_FOCAL_PX:g} pixels'
        )
    if max(fx, fy) > MAX_FOCAL_RATIO * min(fx, fy):
        raise ValueError(
            f'intrinsic_matrix has focal lengths {fx:g} and {fy:g}; one must not exceed '
            f'{MAX_FOCAL_RATIO:g} times the other'
        )
    if last != [0, 0, 1]:
        raise ValueError(f'the last row of intrinsic_matrix is {last}; it must be 0, 0, 1')
    if abs(fx * fy - skew * below) < MIN_DETERMINANT * fx * fy:
        raise ValueError(f'intrinsic_matrix cannot be inverted: {_shown(matrix)}')
    # Tolerate rounding errors of a matrix product.
    if abs(below) > 1e-9 * fy:
        raise ValueError(
            f'intrinsic_matrix has {below:g} in row 1, column 0; it must be 0 because the pinhole '
            'camera model has no such term'
        )
    if abs(skew) > fx:
        raise ValueError(
            f'intrinsic_matrix has skew {skew:g} (row 0, column 1), which must not exceed the '
            f'focal length {fx:g}'
        )
    if max(abs(cx), abs(cy)) > MAX_PRINCIPAL_POINT_PX:
        raise ValueError(
            f'intrinsic_matrix has its principal point at {cx:g}, {cy:g}; it must be within '
            f'{MAX_PRINCIPAL_POINT_PX:g} pixels'
        )
    return matrix


def _checked_coeffs(value: ArrayLike, fisheye: bool) -> FloatArray:
    """Return valid distortion coefficients, empty if all are 0; raises the errors of `Camera`."""
    coeffs: FloatArray = as_numbers('distortion_coeffs', value).reshape(-1)
    lengths = FISHEYE_COEFF_COUNTS if fisheye else DISTORTION_COEFF_COUNTS
    if len(coeffs) not in lengths:
        raise ValueError(
            f'distortion_coeffs has {len(coeffs)} values: {_shown(coeffs)}; the lens model needs '
            f'one of these numbers of values: {lengths}'
        )
    coeffs = _as_finite('distortion_coeffs', coeffs, coeffs.shape)
    max_coeff = np.abs(coeffs).max(initial=0)
    if max_coeff > MAX_DISTORTION_COEFF:
        raise ValueError(
            f'distortion_coeffs contains a value of magnitude {max_coeff:g}; it must be at most '
            f'{MAX_DISTORTION_COEFF:g}'
        )
    if fisheye:
        return np.pad(coeffs, (0, 4 - len(coeffs)))
    return coeffs if coeffs.any() else np.zeros(0)


def _checked_extrinsics(value: ArrayLike) -> FloatArray:
    """Return a valid extrinsic matrix [4, 4]; raises the errors of `Camera`."""
    matrix = _as_finite('extrinsic_matrix', value, (4, 4))
    max_entry = np.abs(matrix[:, :3]).max()
    max_translation_mm = np.abs(matrix[:, 3]).max()
    # Checked before the determinant, which could overflow.
    if max_entry > MAX_ROTATION_ENTRY or max_translation_mm > MAX_TRANSLATION_MM:
        raise ValueError(
            f'extrinsic_matrix is out of range: {_shown(matrix)}; a rotation has entries up to 1, '
            f'a translation up to {MAX_TRANSLATION_MM:g} mm'
        )
    # NumPy warns about some determinants that are 0.
    with np.errstate(divide='ignore'):
        # `Camera.up` and `Camera.from_world` use the upper left part without the rest.
        determinants = np.abs([np.linalg.det(matrix), np.linalg.det(matrix[:3, :3])])
    if not determinants.min() >= MIN_DETERMINANT:
        raise ValueError(f'extrinsic_matrix cannot be inverted: {_shown(matrix)}')
    last = matrix[3].tolist()
    # Tolerate rounding errors of optimisers.
    if not np.allclose(last, (0, 0, 0, 1), rtol=0, atol=LAST_ROW_TOLERANCE):
        raise ValueError(
            f'the last row of extrinsic_matrix is {last}; it must be 0, 0, 0, 1, with the '
            'translation in the last column'
        )
    return np.concatenate([matrix[:3], [(0.0, 0.0, 0.0, 1.0)]])


def _unit_up(value: ArrayLike) -> FloatArray:
    """Return an up direction [3] of unit length; raises the errors of `Camera`."""
    up = _as_finite('world_up_vector', value, (3,))
    max_component = np.abs(up).max()
    if max_component < 1e-9:
        raise ValueError(f'world_up_vector has no direction: {up.tolist()}')
    # The squares of large numbers overflow.
    up = up / max_component
    return up / np.linalg.norm(up)


def as_numbers(name: str, value: ArrayLike) -> FloatArray:
    """
    Convert an argument to a float64 array.

    Raises
    ------
    ValueError
        If it contains anything except real numbers; the message contains the argument's name.
    """
    try:
        array = np.asarray(value)
        if np.iscomplexobj(array):
            raise ValueError('complex numbers')
        return np.asarray(array, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(
            f'{name} is not an array of numbers: {printable(repr(value), MAX_SHOWN_CHARS)}'
        ) from error


def _as_finite(name: str, value: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    array = as_numbers(name, value)
    if array.shape != shape:
        raise ValueError(
            f'{name} has shape {array.shape}, expected {shape}; it is {_shown(array)}'
        )
    if not np.isfinite(array).all():
        raise ValueError(f'{name} contains a value that is not finite: {_shown(array)}')
    return array


def _shown(array: FloatArray) -> str:
    """Return the first values of an array of any size as text, for error messages."""
    if array.size <= MAX_SHOWN_VALUES:
        return printable(array.tolist(), MAX_SHOWN_CHARS)
    return printable(array.reshape(-1)[:MAX_SHOWN_VALUES].tolist(), MAX_SHOWN_CHARS) + '...'
