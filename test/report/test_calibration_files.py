"""The command calibrate: bags with skeletons in, YAML, launch file and picture out."""

from __future__ import annotations

import dataclasses
import runpy
import sys
import types

import cv2
import numpy as np
import pytest
import yaml
from scipy.spatial.transform import Rotation
from simulated_recordings import in_camera, tracked_frames, write_bag
from simulated_rooms import Room

from metrabs_ros import cli
from metrabs_ros.recordings.bags import UnreadableRecording
from metrabs_ros.recordings.extrinsics import UnusableExtrinsics, read_extrinsics
from metrabs_ros.recordings.recorded_people import RecordedPeople, fitted_intrinsics, read_people
from metrabs_ros.skeletons.conventions import Skeleton

LENGTH_S = 15.0


@pytest.fixture(scope='module')
def room():
    return Room.random(2, 2, 3)


@pytest.fixture(scope='module')
def people(room):
    return tracked_frames(room, 10.0, LENGTH_S)


@pytest.fixture(scope='module')
def bag(people, tmp_path_factory):
    return write_bag(tmp_path_factory.mktemp('bags') / 'room', people, with_mounts=True)


@pytest.fixture(scope='module')
def output(bag, tmp_path_factory):
    folder = tmp_path_factory.mktemp('results') / 'extrinsics'
    assert cli.main(['calibrate', str(bag), '-o', str(folder), '--frame', 'room']) == 0
    return folder


def matrix_of(entry, prefix=''):
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_quat(entry[f'{prefix}rotation']).as_matrix()
    matrix[:3, 3] = entry[f'{prefix}translation']
    return matrix


def relative_error(found, room):
    """Return rotation in degrees and shift in mm of the second camera relative to the first."""
    true = room.cameras['camera1'].extrinsic_matrix @ np.linalg.inv(
        room.cameras['camera0'].extrinsic_matrix
    )
    change = found['camera1'] @ np.linalg.inv(found['camera0']) @ np.linalg.inv(true)
    degrees = np.degrees(Rotation.from_matrix(change[:3, :3]).magnitude())
    length_mm = np.linalg.norm(true[:3, 3])
    found_mm = np.linalg.norm((found['camera1'] @ np.linalg.inv(found['camera0']))[:3, 3])
    return degrees, found_mm / length_mm


def test_the_command_calibrate_writes_the_poses_of_the_cameras(output, room):
    degrees, scale = relative_error(read_extrinsics(output / 'extrinsics.yaml'), room)
    assert degrees < 1
    assert scale == pytest.approx(1, abs=0.1)
    values = yaml.safe_load((output / 'extrinsics.yaml').read_text())
    for name, entry in values['cameras'].items():
        assert entry['parent_frame'] == 'room'
        # The optical frame has a parent, which belongs to the same camera.
        assert entry['child_frame'] == f'{name}_link'
        mount = np.linalg.inv(matrix_of(entry)) @ matrix_of(entry, 'optical_')
        np.testing.assert_allclose(mount[:3, 3], (0.1, 0, 0), atol=1e-4)
        assert entry['rotation_deviation_degrees'] < 1
        assert entry['reprojection_error_px'] < 20
    height_m = room.cameras['camera0'].position_mm[2] / 1000
    assert values['cameras']['camera0']['optical_translation'][2] == pytest.approx(
        height_m, abs=0.25
    )


def test_the_launch_file_publishes_the_transforms_of_the_yaml_file(output, monkeypatch):
    launch, launch_ros = types.ModuleType('launch'), types.ModuleType('launch_ros.actions')
    launch.LaunchDescription = list
    launch_ros.Node = lambda **arguments: arguments
    monkeypatch.setitem(sys.modules, 'launch', launch)
    monkeypatch.setitem(sys.modules, 'launch_ros', types.ModuleType('launch_ros'))
    monkeypatch.setitem(sys.modules, 'launch_ros.actions', launch_ros)
    nodes = runpy.run_path(str(output / 'extrinsics.launch.py'))['generate_launch_description']()
    values = yaml.safe_load((output / 'extrinsics.yaml').read_text())['cameras']
    assert len(nodes) == len(values)
    for node, entry in zip(nodes, values.values()):
        assert node['executable'] == 'static_transform_publisher'
        options = dict(zip(node['arguments'][::2], node['arguments'][1::2]))
        assert options['--frame-id'] == 'room'
        assert options['--child-frame-id'] == entry['child_frame']
        assert [float(options[f'--{axis}']) for axis in 'xyz'] == entry['translation']
        assert [float(options[f'--q{axis}']) for axis in 'xyzw'] == entry['rotation']


def test_the_picture_shows_cameras_and_paths(output):
    picture = cv2.imread(str(output / 'extrinsics.png'))
    assert min(picture.shape[:2]) > 500
    dark, colourful = (picture.max(axis=2) < 80), np.ptp(picture, axis=2) > 80
    assert dark.sum() > 1000
    assert colourful.sum() > 1000


def test_given_poses_of_a_file_are_refined(bag, tmp_path, room):
    given = {}
    for name, camera in room.cameras.items():
        to_world = np.linalg.inv(camera.extrinsic_matrix)
        rotation = Rotation.from_matrix(to_world[:3, :3])
        if name == 'camera1':
            rotation = Rotation.from_rotvec((0, 0, 0.05)) * rotation
        given[name] = {
            'translation': (to_world[:3, 3] / 1000).tolist(),
            'rotation': rotation.as_quat().tolist(),
        }
    file = tmp_path / 'given.yaml'
    file.write_text(yaml.safe_dump({'cameras': given}))
    arguments = ['calibrate', str(bag), '-o', str(tmp_path / 'out'), '--refine', str(file)]
    deviations = ['--position-deviation', '0.01', '--rotation-deviation', '3']
    assert cli.main([*arguments, *deviations]) == 0
    refined = read_extrinsics(tmp_path / 'out' / 'extrinsics.yaml')
    degrees, scale = relative_error(refined, room)
    assert degrees < 1
    assert scale == pytest.approx(1, abs=0.01)
    assert 'tilt_deviation_degrees' not in (tmp_path / 'out' / 'extrinsics.yaml').read_text()


def test_poses_of_static_transforms_need_a_common_frame(bag, tmp_path, capfd):
    arguments = ['calibrate', str(bag), '-o', str(tmp_path / 'out'), '--refine', 'tf']
    assert cli.main(arguments) == 1
    captured = capfd.readouterr()
    assert 'camera0 is left out: it has no given pose' in captured.out
    assert 'there are people of 0 cameras' in captured.err


def test_results_of_several_videos_are_several_cameras(people, tmp_path, capfd):
    """In results of annotate for videos, all topics have the same name."""
    bags = []
    for name in ('left', 'right'):
        camera = {'left': 'camera0', 'right': 'camera1'}[name]
        own = [p for p in people if p.camera_name == camera]
        own = [dataclasses.replace(p, camera_name='camera') for p in own]
        bags.append(write_bag(tmp_path / f'{name}_people', own))
    recorded, _ = read_people(bags, print)
    assert [own.name for own in recorded] == ['left', 'right']
    # Frames of the same name in both bags cannot be the same frame.
    assert [own.frame_id for own in recorded] == ['left', 'right']


def test_bags_recorded_one_after_the_other_are_the_same_cameras(people, tmp_path):
    later = [dataclasses.replace(own, stamp_s=own.stamp_s + 100) for own in people]
    bags = [write_bag(tmp_path / name, part) for name, part in (('a', people), ('b', later))]
    recorded, _ = read_people(bags, print)
    assert [own.name for own in recorded] == ['camera0', 'camera1']
    assert sum(len(own.people) for own in recorded) == 2 * len(people)
    ids = [np.concatenate([p.ids for p in own.people]) for own in recorded]
    assert all(own.max() > 1_000_000 for own in ids)


def test_intrinsics_are_those_of_the_image_points(bag, room):
    recorded, _ = read_people([bag], print)
    for own in recorded:
        true = room.cameras[own.name].intrinsic_matrix
        np.testing.assert_allclose(own.intrinsic_matrix, true, rtol=1e-3)


@pytest.mark.parametrize('lens', [(), (-0.25, 0.08, 0.001, -0.001)])
def test_rays_are_those_of_the_image_points_of_the_network(people, lens):
    own = dataclasses.replace(people[0].camera, distortion_coeffs=np.array(lens))
    recorded, error, offset = RecordedPeople('camera0'), [], []
    for frame in (p for p in people if p.camera_name == 'camera0' and len(p)):
        seen = in_camera(frame)
        shifts_px = np.random.default_rng(0).normal(0, 8, seen.poses2d_px.shape)
        projected_px = own.project(seen.poses3d_mm)
        recorded.stamps_s.append(frame.stamp_s)
        recorded.people.append(
            dataclasses.replace(
                seen, poses2d_px=projected_px, network_poses2d_px=projected_px + shifts_px
            )
        )
    recorded.intrinsic_matrix = fitted_intrinsics(recorded.people)
    for frame, seen in zip(recorded.frames(), recorded.people):
        rays, expected = (
            camera.unproject(points_px)[..., :2]
            for camera, points_px in (
                (frame.camera, frame.points2d_px),
                (own, seen.network_poses2d_px),
            )
        )
        error.append(rays - expected)
        offset.append(seen.poses3d_mm[..., :2] / seen.poses3d_mm[..., 2:] - expected)
    share = np.std(np.concatenate(error)) / np.std(np.concatenate(offset))
    assert share < (0.15 if lens else 0.001)


def test_skeletons_without_joints_of_the_body_are_explained(people, tmp_path, capfd):
    renamed = Skeleton('hand', tuple(f'finger{i}' for i in range(17)), ())
    bag = write_bag(
        tmp_path / 'hands', [dataclasses.replace(own, skeleton=renamed) for own in people]
    )
    assert cli.main(['calibrate', str(bag), '-o', str(tmp_path / 'out')]) == 1
    captured = capfd.readouterr()
    assert 'joint_names has none of the joints of the body' in captured.out
    assert 'there are people of 0 cameras' in captured.err


def test_people_in_another_frame_than_the_camera_are_rejected(people):
    """A pose node with target_frame publishes positions in that frame."""
    frames = [in_camera(own) for own in people if own.camera_name == 'camera1' and len(own)]
    fitted_intrinsics(frames)
    in_world = [
        dataclasses.replace(own, poses3d_mm=people[0].camera.to_world(own.poses3d_mm))
        for own in frames
    ]
    with pytest.raises(UnreadableRecording, match='do not match their image points'):
        fitted_intrinsics(in_world)


@pytest.mark.parametrize(
    'text',
    [
        '',
        '[1, 2]',
        'cameras: 3',
        'cameras: {}',
        'cameras: {a: 1}',
        'cameras: {a: {translation: [0, 0, 0]}}',
        'cameras: {a: {translation: [0, 0], rotation: [0, 0, 0, 1]}}',
        'cameras: {a: {translation: [0, 0, .nan], rotation: [0, 0, 0, 1]}}',
        'cameras: {a: {translation: [0, 0, x], rotation: [0, 0, 0, 1]}}',
        'cameras: {a: {translation: [0, 0, 0], rotation: [0, 0, 0, 0]}}',
        'cameras: {a: {translation: [0, 0, 0], rotation: [0, 0, 0, .inf]}}',
        'cameras: {a: {translation: [0, 0, 1.0e+300], rotation: [0, 0, 0, 1]}}',
        'cameras: {a: {translation: {b: 1}, rotation: [0, 0, 0, 1]}}',
        'a: [',
        '\x00',
    ],
)
def test_files_without_poses_are_rejected(tmp_path, text):
    file = tmp_path / 'extrinsics.yaml'
    file.write_text(text)
    with pytest.raises(UnusableExtrinsics, match=r'extrinsics\.yaml'):
        read_extrinsics(file)


def test_given_poses_may_be_relative_to_another_camera(tmp_path):
    entry = {'translation': [1.0, 0.0, 0.0], 'rotation': [0.0, 0.0, 0.0, 1.0]}
    cameras = {
        'a': {'parent_frame': 'map', 'child_frame': 'a_link', **entry},
        'b': {'parent_frame': 'a_link', 'child_frame': 'b_link', **entry},
    }
    file = tmp_path / 'extrinsics.yaml'
    file.write_text(yaml.safe_dump({'cameras': cameras}))
    assert read_extrinsics(file)['b'][0, 3] == -2000
    for parent, reason in (('odom', 'several frames: map, odom'), ('b_link', 'cycle')):
        cameras['b']['parent_frame'] = parent
        file.write_text(yaml.safe_dump({'cameras': cameras}))
        with pytest.raises(UnusableExtrinsics, match=reason):
            read_extrinsics(file)


def test_a_missing_file_is_rejected(tmp_path):
    with pytest.raises(UnusableExtrinsics, match='cannot be read'):
        read_extrinsics(tmp_path / 'missing.yaml')


def test_unusable_inputs_are_one_line(tmp_path, output, bag, people, capfd):
    alone = write_bag(tmp_path / 'alone', [own for own in people if own.camera_name == 'camera0'])
    for arguments, message in (
        ([tmp_path / 'missing'], 'does not exist'),
        ([alone], 'there are people of 1 cameras'),
        ([bag, '-o', output], 'already exists; --overwrite replaces it'),
        ([bag, '--refine', tmp_path / 'missing.yaml'], 'cannot be read'),
        ([bag, '--refine', output / 'extrinsics.yaml', '--rotation-deviation', '0'], 'must be'),
    ):
        defaults = [] if '-o' in arguments else ['-o', tmp_path / 'out']
        assert cli.main(['calibrate', *map(str, [*arguments, *defaults])]) == 1
        error = capfd.readouterr().err.splitlines()[-1]
        assert message in error
    assert not (tmp_path / 'out').exists()
