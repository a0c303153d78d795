from __future__ import annotations

import hypothesis
import numpy as np
from hypothesis import strategies

from metrabs_ros.fusion.triangulation import PointRays, intersections, triangulate

coordinates = strategies.floats(-3000, 3000)
points = strategies.tuples(coordinates, coordinates, coordinates).map(np.array)
ORIGINS_MM = np.array([(6000, 0, 2500), (0, 6000, 2500), (-6000, 500, 2500), (400, -6000, 2500.0)])


def rays_to(points_mm: np.ndarray, origins_mm: np.ndarray = ORIGINS_MM, **changes) -> PointRays:
    """Return rays from all V origins to each of B points."""
    shape = len(origins_mm), len(points_mm)
    origins_mm = np.broadcast_to(origins_mm.T[..., None], (3, *shape))
    directions = points_mm.T[:, None] - origins_mm
    values = {
        'origins_mm': origins_mm,
        'directions': directions / np.linalg.norm(directions, axis=0),
        'std_mm': np.full(shape, 30.0),
        'weights': np.ones(shape),
        'distances_mm': np.zeros(shape),
        'distance_information': np.zeros(shape),
    }
    return PointRays(**(values | changes))


NOTHING = np.zeros((1, 3, 3))


@hypothesis.given(points, points)
def test_rays_without_errors_meet_in_their_point_whatever_the_start(point_mm, start_mm):
    found = triangulate(rays_to(point_mm[None]), start_mm[None], NOTHING)
    np.testing.assert_allclose(found.points_mm[0], point_mm, atol=1.0)
    assert (found.agreement > 0.99).all()


@hypothesis.given(points, strategies.integers(0, 3), strategies.floats(0.2, 0.9))
def test_one_wrong_view_of_four_is_ignored(point_mm, view, angle):
    rays = rays_to(point_mm[None])
    direction = rays.directions[:, view, 0].copy()
    across = np.cross(direction, [0, 0, 1.0])
    hypothesis.assume(np.linalg.norm(across) > 0.1)
    across /= np.linalg.norm(across)
    rays.directions[:, view, 0] = np.cos(angle) * direction + np.sin(angle) * across
    found = triangulate(rays, point_mm[None] + 300, NOTHING)
    np.testing.assert_allclose(found.points_mm[0], point_mm, atol=5)
    assert found.agreement[view, 0] < 0.01


@hypothesis.given(points)
def test_the_prior_decides_along_a_single_ray_and_not_across(point_mm):
    rays = rays_to(point_mm[None], ORIGINS_MM[:1])
    direction = rays.directions[:, 0, 0]
    prior_mm = point_mm + 250 * direction + 20 * np.array([0, 0, 1.0])
    found = triangulate(rays, prior_mm[None], np.eye(3)[None] / 200**2)
    error_mm = found.points_mm[0] - point_mm
    along_mm = error_mm @ direction
    assert 200 < along_mm < 300
    assert np.linalg.norm(error_mm - along_mm * direction) < 5


def test_parallel_rays_with_a_prior_stay_finite():
    origins_mm = np.array([(0, 0, 0), (0, 0, 0), (1e-9, 0, 0)])
    rays = rays_to(np.array([(0, 0, 4000.0)]), origins_mm)
    found = triangulate(rays, np.array([(0, 0, 3000.0)]), np.eye(3)[None] / 300**2)
    np.testing.assert_allclose(found.points_mm[0], (0, 0, 3000), atol=1)
    assert np.isfinite(found.information).all()


def test_points_behind_a_camera_do_not_use_its_ray():
    rays = rays_to(np.array([(0, 0, 1000.0)]))
    rays.directions[:, 0, 0] *= -1
    found = triangulate(rays, np.array([(0, 0, 900.0)]), NOTHING)
    assert found.agreement[0, 0] < 1e-6
    np.testing.assert_allclose(found.points_mm[0], (0, 0, 1000), atol=1)


def test_no_seen_ray_returns_the_prior():
    rays = rays_to(np.array([(0, 0, 1000.0)]), weights=np.zeros((4, 1)))
    prior_mm = np.array([(10, 20, 30.0)])
    found = triangulate(rays, prior_mm, np.eye(3)[None])
    np.testing.assert_allclose(found.points_mm, prior_mm)
    assert (found.information == 0).all()


def test_a_sudden_motion_that_all_views_agree_on_reduces_the_weight_of_the_prior():
    point_mm = np.array([(0, 0, 1000.0)])
    found = triangulate(rays_to(point_mm), point_mm + 400, np.eye(3)[None] / 20**2)
    np.testing.assert_allclose(found.points_mm, point_mm, atol=30)
    assert found.prior_weight[0] < 0.1


@hypothesis.given(points, points, points)
def test_intersections_are_the_points_where_rays_are_closest(one_mm, other_mm, target_mm):
    directions = [target_mm - one_mm, target_mm + 50 - other_mm]
    hypothesis.assume(min(np.linalg.norm(d) for d in directions) > 10)
    one, other = (d / np.linalg.norm(d) for d in directions)
    first_mm, second_mm, sine = intersections(one_mm, one, other_mm, other)
    hypothesis.assume(sine > 1e-2)
    gap_mm = one_mm + first_mm * one - other_mm - second_mm * other
    assert abs(gap_mm @ one) < 1e-3
    assert abs(gap_mm @ other) < 1e-3
