"""Extrinsic calibration from people: accuracy in simulated rooms, deviations, invalid input."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from simulated_recordings import pose_errors, tracked_frames
from simulated_rooms import Room, looking_at

from metrabs_ros.fusion.calibration import calibrate_cameras, refine_cameras
from metrabs_ros.fusion.camera_graph import MIN_OVERLAP_S
from metrabs_ros.fusion.camera_tracks import CalibrationError, camera_tracks
from metrabs_ros.fusion.floor import estimate_floor
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.fusion.relative_poses import common_instants, estimate_relative_pose, joined

RATE_HZ = 10.0


@pytest.fixture(scope='module')
def room():
    return Room.random(3, 2, 5)


@pytest.fixture(scope='module')
def people(room):
    return tracked_frames(room, RATE_HZ, 60.0)


@pytest.fixture(scope='module')
def calibration(people):
    return calibrate_cameras(people)


def moved(people, turns, shifts_mm):
    """Return the same people with wrong poses of the cameras."""
    wrong = {}
    for name, turn, shift_mm in zip(sorted({own.camera_name for own in people}), turns, shifts_mm):
        wrong[name] = np.eye(4)
        wrong[name][:3, :3] = Rotation.from_rotvec(np.radians(turn)).as_matrix()
        wrong[name][:3, 3] = shift_mm
    result = []
    for own in people:
        camera = dataclasses.replace(
            own.camera, extrinsic_matrix=wrong[own.camera_name] @ own.camera.extrinsic_matrix
        )
        poses_mm = camera.to_world(own.camera.from_world(own.poses3d_mm))
        result.append(dataclasses.replace(own, camera=camera, poses3d_mm=poses_mm))
    return result


@pytest.mark.slow
def test_poses_of_three_cameras_are_found_in_one_minute(calibration, room):
    errors = pose_errors(calibration, room)
    assert errors.degrees.max() < 0.3
    assert (errors.millimetres / errors.distances_mm).max() < 0.01
    assert errors.scale == pytest.approx(1, abs=0.02)
    assert errors.tilt_degrees < 0.3
    assert abs(errors.height_mm) < 50
    assert not calibration.left_out
    # The first camera is above the origin and looks along x.
    first = calibration.cameras[0].camera
    np.testing.assert_allclose(first.position_mm[:2], 0, atol=1)
    forward = first.extrinsic_matrix[2, :3]
    assert forward[0] > 0
    assert forward[1] == pytest.approx(0, abs=1e-3)


@pytest.mark.slow
def test_deviations_are_realistic():
    """Errors relative to the stated deviations, over several rooms."""
    turns, shifts = [], []
    for seed in range(3):
        room = Room.random(3, 1, 20 + seed)
        calibration = calibrate_cameras(tracked_frames(room, RATE_HZ, 20.0, seed))
        errors = pose_errors(calibration, room)
        others = calibration.cameras[1:]
        turns.append(errors.degrees / [own.rotation_std_degrees for own in others])
        shifts.append(errors.millimetres / [own.position_std_mm for own in others])
    for ratios in (turns, shifts):
        assert 0.2 < np.sqrt(np.mean(np.square(ratios))) < 2


@pytest.mark.slow
def test_reprojection_errors_and_overlaps_are_reported(calibration):
    for own in calibration.cameras:
        assert 1 < own.error_px < 15
        assert 0.9 < own.inliers <= 1
        assert set(own.overlaps_s) == {f'camera{i}' for i in range(3)} - {own.name}
        assert all(60 < overlap_s < 120 for overlap_s in own.overlaps_s.values())
    assert len(calibration.paths) == 2


@pytest.mark.slow
def test_given_poses_are_refined_in_their_world_frame(people, room):
    wrong = moved(people, [(0.5, 0, 0), (0, -0.6, 0), (0, 0, 0.7)], np.zeros((3, 3)))
    calibration = refine_cameras(wrong, 1.0, 20.0)
    for own in calibration.cameras:
        true = room.cameras[own.name]
        turn = own.camera.extrinsic_matrix[:3, :3] @ true.extrinsic_matrix[:3, :3].T
        # The prior of all rotations leaves their mean uncertain.
        assert np.degrees(Rotation.from_matrix(turn).magnitude()) < 0.5
        assert np.linalg.norm(own.camera.position_mm - true.position_mm) < 40
    assert pose_errors(calibration, room).degrees.max() < 0.3
    assert np.isnan(calibration.tilt_std_degrees)
    assert not calibration.warnings


@pytest.mark.slow
def test_a_camera_with_a_wrong_given_pose_is_named(people):
    wrong = moved(people, [(0, 0, 0), (0, 0, 0), (0, 6, 0)], np.zeros((3, 3)))
    calibration = refine_cameras(wrong, 0.5, 10.0)
    (warning,) = calibration.warnings
    assert warning.startswith('camera2 was turned by')


@pytest.mark.slow
def test_clocks_that_differ_by_a_tenth_of_a_second_do_not_matter_if_stamps_are_right(room):
    people = [
        own
        for own in tracked_frames(room, 30.0, 15.0)
        # Every third image, each camera at other times.
        if (round(30 * own.stamp_s) + int(own.camera_name[-1])) % 3 == 0
    ]
    assert pose_errors(calibrate_cameras(people), room).degrees.max() < 0.3


@pytest.mark.slow
def test_a_camera_without_overlap_is_left_out(people):
    away = looking_at(np.array([50.0, 0, 2]), np.array([60.0, 0, 1]))
    room = Room({'far': away}, np.array([[(57.0, 0), (58, 1)] * 20]), np.ones(1), np.array([1700]))
    lonely = [own for own in tracked_frames(room, RATE_HZ, 15.0) if len(own)]
    assert lonely
    calibration = calibrate_cameras([*people, *lonely])
    assert [own.name for own in calibration.cameras] == ['camera0', 'camera1', 'camera2']
    assert f'at least {MIN_OVERLAP_S:g} s are needed' in calibration.left_out['far']


@pytest.mark.slow
def test_people_with_wrong_sizes_scale_the_scene_only(people, room):
    """The network takes children for adults that are farther away."""
    small = [
        dataclasses.replace(
            own, poses3d_mm=own.camera.to_world(1.2 * own.camera.from_world(own.poses3d_mm))
        )
        for own in people
    ]
    errors = pose_errors(calibrate_cameras(small), room)
    assert errors.degrees.max() < 0.3
    assert errors.scale == pytest.approx(1.2, abs=0.03)


def without_people(people):
    return [own.select(np.zeros(0, int)) for own in people]


def one_camera(people):
    return [own for own in people if own.camera_name == 'camera0']


def without_ids(people):
    return [dataclasses.replace(own, track_ids=np.full(len(own), -1)) for own in people]


def without_poses(people):
    return [
        dataclasses.replace(own, poses3d_mm=np.zeros(0), axis_std_mm=np.zeros(0)) for own in people
    ]


def not_finite(people):
    return [
        dataclasses.replace(
            own,
            points2d_px=np.full_like(own.points2d_px, np.nan),
            poses3d_mm=np.full_like(own.poses3d_mm, np.inf),
        )
        for own in people
    ]


def at_other_times(people):
    return [
        dataclasses.replace(own, stamp_s=own.stamp_s + 100 * int(own.camera_name[-1]))
        for own in people
    ]


def one_moment(people):
    return list({own.camera_name: own for own in people}.values())


def nothing(people):
    return []


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (nothing, 'there are people of 0 cameras'),
        (one_camera, 'there are people of 1 cameras'),
        (without_people, 'no camera sees any people'),
        (without_ids, 'people with track ids are seen by no camera only'),
        (without_poses, 'the people have no 3D poses'),
        (not_finite, 'people with track ids are seen by no camera only'),
        (at_other_times, 'no two cameras see the same people'),
        (one_moment, 'people with track ids are seen by'),
    ],
)
def test_unusable_people_are_explained_in_one_sentence(people, change, message):
    for calibrate in (calibrate_cameras, refine_cameras):
        if change is without_poses and calibrate is refine_cameras:
            continue
        with pytest.raises(CalibrationError) as error:
            calibrate(change(people))
        assert message in str(error.value)
        assert '\n' not in str(error.value)


def test_people_who_stand_at_one_place_are_not_enough(people):
    first: dict[str, CameraPeople] = {}
    still = []
    for own in people:
        seen = first.setdefault(own.camera_name, own) if len(own) == 2 else None
        if seen is not None:
            still.append(dataclasses.replace(seen.select(np.zeros(1, int)), stamp_s=own.stamp_s))
    one = [dataclasses.replace(own, track_ids=np.ones(1, np.int64)) for own in still]
    with pytest.raises(CalibrationError, match='all people stay at one place'):
        calibrate_cameras(one)


@pytest.mark.parametrize('value', [0.0, -1.0, np.nan, np.inf])
def test_deviations_that_are_not_positive_are_rejected(people, value):
    with pytest.raises(CalibrationError, match='must be more than 0'):
        refine_cameras(people, rotation_std_degrees=value)
    with pytest.raises(CalibrationError, match='must be more than 0'):
        refine_cameras(people, position_std_mm=value)


def test_a_pair_of_cameras_is_matched_without_known_poses(people, room):
    tracks, _ = camera_tracks(people)
    for a, b in itertools.combinations(range(3), 2):
        pose = estimate_relative_pose(common_instants(tracks[a], tracks[b]))
        true = room.cameras[f'camera{b}'].extrinsic_matrix @ np.linalg.inv(
            room.cameras[f'camera{a}'].extrinsic_matrix
        )
        turn = Rotation.from_matrix(pose.rotation @ true[:3, :3].T)
        assert np.degrees(turn.magnitude()) < 3
        distance_mm = np.linalg.norm(true[:3, 3])
        assert np.linalg.norm(pose.translation_mm - true[:3, 3]) < 0.3 * distance_mm


@given(st.lists(st.integers(0, 9)), st.lists(st.integers(0, 9)))
def test_all_pairs_of_equal_values_are_joined(one, other):
    rows = joined(np.array(one, int), np.array(other, int))
    expected = [(i, k) for i, a in enumerate(one) for k, b in enumerate(other) if a == b]
    assert sorted(map(tuple, rows.tolist())) == sorted(expected)


@settings(max_examples=30, deadline=None)
@given(
    turn=st.tuples(*[st.floats(-np.pi, np.pi)] * 3),
    height_mm=st.floats(-5000, 5000),
    lifted=st.floats(0, 0.3),
)
@pytest.mark.slow
def test_the_floor_is_found_in_any_frame(turn, height_mm, lifted):
    room = Room.random(2, 3, 1)
    points_mm = np.concatenate([room.people_mm(t) for t in np.arange(0, 30, 0.5)])
    from metrabs_ros.fusion.camera_tracks import body_joints
    from metrabs_ros.skeletons.conventions import COCO_17

    points_mm = points_mm[:, body_joints(COCO_17)]
    # Some people stand on chairs.
    chairs = np.random.default_rng(0).random(len(points_mm)) < lifted
    points_mm[chairs] += (0, 0, 450)
    rotation = Rotation.from_rotvec(turn).as_matrix()
    up = rotation[:, 2]
    floor = estimate_floor(points_mm @ rotation.T + height_mm * up)
    assert np.degrees(np.arccos(np.clip(floor.up @ up, -1, 1))) < 1
    assert floor.height_mm == pytest.approx(height_mm, abs=25)
