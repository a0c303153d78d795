"""
Normal equations of the bundle adjustment.

Each step of Levenberg and Marquardt eliminates the joints (Schur complement), which leaves six
unknowns per camera and one per person; the inverse of their matrix is the covariance of the
result.
"""

from __future__ import annotations

import cv2
import numpy as np

from metrabs_ros.arrays import FloatArray
from metrabs_ros.fusion.adjustment_residuals import (
    Estimate,
    Observations,
    Prior,
    Residuals,
    jacobians,
    prior_errors,
)


class NormalEquations:
    """The normal equations at an estimate, without the points."""

    def __init__(
        self,
        observations: Observations,
        estimate: Estimate,
        prior: Prior,
        residuals: Residuals,
    ) -> None:
        self._people, self._estimate = observations.people, estimate
        cameras, people = len(estimate.rotations), len(estimate.log_scales)
        self._cameras = cameras
        by_point, by_camera, by_scale = jacobians(observations, estimate, residuals)
        weights, values = residuals.weights, residuals.values
        weighted = weights[..., None] * by_point
        self._points = (np.swapaxes(weighted, -1, -2) @ by_point).sum(axis=1)
        self._mixed = np.swapaxes(by_camera, -1, -2) @ weighted
        self._mixed_scale = np.einsum('qcj,qcji->qji', by_scale, weighted[..., 2, :])
        self._right_points = -(weighted * values[..., None]).sum(axis=(1, 3))
        size = 6 * cameras + people
        normal, right = np.zeros((size, size)), np.zeros(size)
        weighted = weights[..., None] * by_camera
        right[: 6 * cameras] = -(weighted * values[..., None]).sum(axis=(0, 2, 3)).ravel()
        cross = np.einsum('qcj,qcji->qci', by_scale, weighted[..., 2, :]).reshape(-1, 6 * cameras)
        scale_weights = weights[..., 2] * by_scale
        for c in range(cameras):
            own = weighted[:, c].reshape(-1, 6).T @ by_camera[:, c].reshape(-1, 6)
            normal[6 * c : 6 * c + 6, 6 * c : 6 * c + 6] = own
        in_cross = np.zeros((people, 6 * cameras))
        np.add.at(in_cross, self._people, cross)
        normal[6 * cameras :, : 6 * cameras] = in_cross
        normal[: 6 * cameras, 6 * cameras :] = in_cross.T
        diagonal = np.arange(6 * cameras, size)
        own_scale = np.bincount(
            self._people, (scale_weights * by_scale).sum(axis=(1, 2)), minlength=people
        )
        normal[diagonal, diagonal] = own_scale + observations.person_scale_std**-2.0
        right[6 * cameras :] = -np.bincount(
            self._people, (scale_weights * values[..., 2]).sum(axis=(1, 2)), minlength=people
        )
        right[6 * cameras :] -= estimate.log_scales / observations.person_scale_std**2
        self._normal, self._right = normal, right
        self._add_prior(prior)

    def _add_prior(self, prior: Prior) -> None:
        turns, shifts_mm = prior_errors(self._estimate, prior)
        for c, rotation in enumerate(self._estimate.rotations):
            of_rotation, of_position = prior.rotation_std[c] ** -2, prior.position_std_mm[c] ** -2
            at = 6 * c
            # A turn of the camera frame does not move the camera; a shift of it does.
            self._normal[at : at + 3, at : at + 3] += of_rotation * np.eye(3)
            self._right[at : at + 3] -= of_rotation * turns[c]
            self._normal[at + 3 : at + 6, at + 3 : at + 6] += of_position * np.eye(3)
            self._right[at + 3 : at + 6] += of_position * rotation @ shifts_mm[c]

    def _reduced(self, damping: float) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the equations of cameras and sizes, and the inverse matrices of the points."""
        points = self._points + 1e-10 * np.eye(3)
        diagonal = np.arange(3)
        points[..., diagonal, diagonal] *= 1 + damping
        inverse = np.linalg.inv(points)
        normal, right = self._normal.copy(), self._right.copy()
        at = np.arange(len(right))
        normal[at, at] *= 1 + damping
        size = 6 * self._cameras
        # [Q, J, 6 C, 3]
        mixed = np.moveaxis(self._mixed, 1, 2).reshape(*inverse.shape[:2], size, 3)
        eliminated = mixed @ inverse
        flat = np.moveaxis(mixed, 2, 3).reshape(-1, size)
        normal[:size, :size] -= np.moveaxis(eliminated, 2, 3).reshape(-1, size).T @ flat
        right[:size] -= np.tensordot(eliminated, self._right_points, ([0, 1, 3], [0, 1, 2]))
        of_scale = np.einsum('qji,qjik->qjk', self._mixed_scale, inverse)
        cross = np.zeros((len(right) - size, size))
        np.add.at(cross, self._people, np.einsum('qjk,qjik->qi', of_scale, mixed))
        normal[size:, :size] -= cross
        normal[:size, size:] -= cross.T
        own = (of_scale * self._mixed_scale).sum(axis=(1, 2))
        own_right = (of_scale * self._right_points).sum(axis=(1, 2))
        normal[at[size:], at[size:]] -= np.bincount(self._people, own, minlength=len(cross))
        right[size:] -= np.bincount(self._people, own_right, minlength=len(cross))
        return normal, right, inverse

    def step(self, damping: float) -> Estimate:
        """Return the estimate after a step."""
        normal, right, inverse = self._reduced(damping)
        change = _solve_scaled(normal, right)
        size = 6 * self._cameras
        of_cameras = change[:size].reshape(-1, 6)
        remaining = self._right_points - (self._mixed * of_cameras[:, None, :, None]).sum(
            axis=(1, 3)
        )
        remaining -= self._mixed_scale * change[size:][self._people][:, None, None]
        points_mm = self._estimate.points_mm + np.einsum('qjik,qjk->qji', inverse, remaining)
        turns = np.stack([cv2.Rodrigues(turn)[0] for turn in of_cameras[:, :3]])
        return Estimate(
            turns @ self._estimate.rotations,
            np.einsum('cij,cj->ci', turns, self._estimate.translations_mm) + of_cameras[:, 3:],
            points_mm,
            self._estimate.log_scales + change[size:],
        )

    def covariance(self) -> FloatArray:
        """Return the covariance of cameras and sizes; see `bundle_adjustment.adjust`."""
        normal, _, _ = self._reduced(0.0)
        scale = 1 / np.sqrt(np.maximum(np.diag(normal), 1e-12))
        return (
            scale[:, None]
            * np.linalg.pinv(normal * scale * scale[:, None], hermitian=True)
            * scale
        )


def _solve_scaled(normal: FloatArray, right: FloatArray) -> FloatArray:
    """Solve equations whose unknowns have different units."""
    scale = 1 / np.sqrt(np.maximum(np.diag(normal), 1e-12))
    scaled = normal * scale * scale[:, None]
    return scale * np.linalg.lstsq(scaled, scale * right, rcond=None)[0]
