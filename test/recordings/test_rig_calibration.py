"""Calibrations of several cameras from files of Pose2Sim, Qualisys and ROS."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rig_files import extrinsics, write_folder, write_pose2sim, write_qualisys
from simulated_rooms import looking_at

from metrabs_ros.camera import Camera
from metrabs_ros.conversions.cameras import to_camera
from metrabs_ros.recordings.calibration import Calibration, UnusableCalibration
from metrabs_ros.recordings.rig_calibration import read_rig, resized

SHAPE = (480, 640)
WRITERS = {
    'Pose2Sim': lambda folder, cameras: write_pose2sim(folder / 'a.toml', cameras, SHAPE),
    'Qualisys': lambda folder, cameras: write_qualisys(folder / 'a.qca.txt', cameras, SHAPE),
    'Qualisys, region': lambda folder, cameras: write_qualisys(
        folder / 'a.qca.txt', cameras, SHAPE, 100, 40
    ),
    'ROS': lambda folder, cameras: write_folder(folder / 'rig', cameras, SHAPE),
}


def camera_at(place_m, target_m=(0, 0, 1), roll=0.0):
    """Return a camera with a lens at a place that looks at a target, metres."""
    placed = looking_at(np.array(place_m, float), np.array(target_m, float), roll)
    intrinsic = np.array([[510.0, 0, 321.5], [0, 505.0, 236.5], [0, 0, 1]])
    lens = np.array([-0.05, 0.02, 0.001, -0.002])
    return Camera(intrinsic, lens, placed.extrinsic_matrix, (0, 0, 1))


CAMERAS = {'left': camera_at((4, 1, 2)), 'right': camera_at((-3, 2, 1.5), roll=0.3)}


def rig_of(path, fixed_frame='map'):
    """Return the cameras and the warnings."""
    warnings = []
    return read_rig(path, fixed_frame, warnings.append), warnings


def assert_same(rig, cameras):
    """Compare the image points of points in the world."""
    assert list(rig) == list(cameras)
    points_mm = np.random.default_rng(0).uniform((-500, -500, 500), (500, 500, 1500), (20, 3))
    for name, camera in cameras.items():
        own = rig[name]
        read = to_camera(own.calibration, SHAPE)
        in_camera_mm = points_mm @ own.extrinsic_matrix[:3, :3].T + own.extrinsic_matrix[:3, 3]
        expected_px = camera.project(camera.from_world(points_mm))
        np.testing.assert_allclose(read.project(in_camera_mm), expected_px, atol=1e-3)


@pytest.mark.parametrize('kind', WRITERS)
@given(
    st.floats(-np.pi, np.pi),
    st.floats(1.5, 8),
    st.floats(0.3, 4),
    st.floats(-np.pi, np.pi),
)
@settings(deadline=None, max_examples=20, suppress_health_check=list(HealthCheck))
def test_points_are_projected_as_by_the_written_camera(
    tmp_path, kind, angle, distance_m, height_m, roll
):
    place_m = (distance_m * np.cos(angle), distance_m * np.sin(angle), height_m)
    cameras = {'a': camera_at(place_m, roll=roll)}
    rig, warnings = rig_of(WRITERS[kind](tmp_path, cameras))
    assert not warnings
    assert_same(rig, cameras)
    assert rig['a'].frame_id == 'a_optical_frame'


def test_extrinsics_may_be_relative_to_another_camera(tmp_path):
    poses = extrinsics(CAMERAS)
    left, right = (np.linalg.inv(own.extrinsic_matrix) for own in CAMERAS.values())
    relative = Camera(np.eye(3), extrinsic_matrix=np.linalg.inv(np.linalg.inv(left) @ right))
    poses['cameras']['right'] = extrinsics({'right': relative}, 'left_optical_frame')['cameras'][
        'right'
    ]
    rig, warnings = rig_of(write_folder(tmp_path / 'rig', CAMERAS, SHAPE, poses))
    assert not warnings
    assert_same(rig, CAMERAS)


def test_the_pose_of_the_optical_frame_is_used_if_the_child_is_another_frame(tmp_path):
    poses = extrinsics(CAMERAS)
    own = poses['cameras']['left']
    own |= {f'optical_{key}': own[key] for key in ('translation', 'rotation')}
    own |= {'child_frame': 'left_link', 'optical_frame': 'left_optical'}
    own |= {'translation': [9.0, 9, 9], 'rotation': [0.0, 0, 0, 1]}
    rig, _ = rig_of(write_folder(tmp_path / 'rig', CAMERAS, SHAPE, poses))
    assert_same(rig, CAMERAS)
    assert rig['left'].frame_id == 'left_optical'


INVALID = {
    'rotation = [nan, 0.0, 0.0]': {'rotation': '[nan, 0.0, 0.0]'},
    'has no matrix': {'rotation': None},
    'size': {'size': '[0.0, 480.0]'},
    'half a pixel': {'size': '[640.5, 480.0]'},
    'text': {'translation': '["a", 0.0, 0.0]'},
    'too far': {'translation': '[1e9, 0.0, 0.0]'},
    'too few numbers': {'matrix': '[[1.0, 0.0], [0.0, 1.0]]'},
    'no list': {'distortions': '"none"'},
}


@pytest.mark.parametrize('changes', INVALID.values(), ids=INVALID)
def test_cameras_with_invalid_values_are_left_out_with_one_sentence(tmp_path, changes):
    good = write_pose2sim(tmp_path / 'good.toml', {'left': CAMERAS['left']}, SHAPE)
    bad = write_pose2sim(tmp_path / 'bad.toml', {'right': CAMERAS['right']}, SHAPE, **changes)
    both = tmp_path / 'both.toml'
    both.write_text(good.read_text().replace('[metadata]', '[other]') + bad.read_text())
    rig, warnings = rig_of(both)
    assert list(rig) == ['left']
    assert len(warnings) == 1
    assert warnings[0].startswith(f'camera right of {both} is not used: it')
    assert '\n' not in warnings[0]
    with pytest.raises(UnusableCalibration, match='no camera that can be used'):
        rig_of(bad)


@pytest.mark.parametrize('changes', [{'r11': 'nan'}, {'r11': 7}, {'x': ''}, {'focalLengthU': 'x'}])
def test_invalid_values_of_qualisys_are_reported(tmp_path, changes):
    file = write_qualisys(tmp_path / 'a.qca.txt', CAMERAS, SHAPE, **changes)
    warnings = []
    with pytest.raises(UnusableCalibration, match='no camera that can be used'):
        read_rig(file, 'map', warnings.append)
    assert len(warnings) == 2


def test_turned_images_of_qualisys_are_left_out(tmp_path):
    file = write_qualisys(tmp_path / 'a.qca.txt', CAMERAS, SHAPE)
    file.write_text(file.read_text().replace('viewrotation="0"', 'viewrotation="90"', 1))
    rig, (warning,) = rig_of(file)
    assert list(rig) == ['right']
    assert 'viewrotation is 90' in warning


def test_duplicate_names_are_rejected(tmp_path):
    file = write_qualisys(tmp_path / 'a.qca.txt', CAMERAS, SHAPE)
    file.write_text(file.read_text().replace('"right"', '"left"'))
    with pytest.raises(UnusableCalibration, match='same name: left'):
        rig_of(file)


def test_a_camera_without_intrinsics_or_in_another_frame_is_left_out(tmp_path):
    poses = extrinsics(CAMERAS)
    poses['cameras']['right']['parent_frame'] = 'room'
    poses['cameras']['third'] = poses['cameras']['left']
    rig, warnings = rig_of(write_folder(tmp_path / 'rig', CAMERAS, SHAPE, poses))
    assert list(rig) == ['left']
    assert "in the frame 'room', not in 'map'; give the frame with --fixed-frame" in warnings[0]
    assert 'has no third.yaml' in warnings[1]


@pytest.mark.parametrize(
    'change',
    [
        {'rotation': [0, 0, 0, 2]},
        {'rotation': [0, 0, 1]},
        {'translation': [0, float('nan'), 0]},
        {'parent_frame': None, 'translation': {'x': 1, 'y': 2}},
    ],
)
def test_invalid_extrinsics_are_rejected(tmp_path, change):
    poses = extrinsics(CAMERAS)
    poses['cameras']['left'] |= change
    with pytest.raises(UnusableCalibration, match='not a file of extrinsics'):
        rig_of(write_folder(tmp_path / 'rig', CAMERAS, SHAPE, poses))


@given(text=st.binary(max_size=300))
@settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))
@pytest.mark.parametrize('name', ['a.toml', 'a.qca.txt', 'extrinsics.yaml'])
def test_other_content_is_rejected(tmp_path, name, text):
    (tmp_path / name).write_bytes(text)
    path = tmp_path if name == 'extrinsics.yaml' else tmp_path / name
    with pytest.raises(UnusableCalibration):
        read_rig(path, 'map', lambda message: None)


def test_entities_are_not_expanded(tmp_path):
    file = tmp_path / 'a.qca.txt'
    file.write_text('<!DOCTYPE a [<!ENTITY b "c">]><calibration>&b;</calibration>')
    with pytest.raises(UnusableCalibration, match='document type'):
        rig_of(file)


def test_missing_and_unknown_files_are_explained(tmp_path):
    for name in ('none.toml', 'none.qca.txt', '.'):
        with pytest.raises(UnusableCalibration, match=r'^the calibration cannot .*does not exist'):
            rig_of(tmp_path / name)
    (tmp_path / 'a.json').write_text('{}')
    with pytest.raises(UnusableCalibration, match=r'neither a \.toml'):
        rig_of(tmp_path / 'a.json')


def test_images_that_were_resampled_a_little_are_calibrated():
    camera = CAMERAS['left']
    height, width = SHAPE
    k = camera.intrinsic_matrix.ravel().tolist()
    calibration = Calibration(width, height, k, camera.distortion_coeffs.tolist())
    narrow = resized(calibration, 634, 480)
    points_mm = np.array([[200.0, 100, 2000], [-300, -150, 2500]])
    expected_px = (camera.project(points_mm) + 0.5) * (634 / 640, 1) - 0.5
    found_px = to_camera(narrow, (480, 634)).project(points_mm)
    np.testing.assert_allclose(found_px, expected_px, atol=1e-6)
    with pytest.raises(UnusableCalibration, match=r'480 x 480 pixels, but .* for 640'):
        resized(calibration, 480, 480)
