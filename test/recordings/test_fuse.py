"""Fusion of the people of several cameras in bags and in folders of videos."""

from __future__ import annotations

import collections
import csv
import json

import cv2
import numpy as np
import pytest
from known_people import KnownPeople
from recorded_bags import (
    FOCAL_PX,
    START_NS,
    STEP_NS,
    RecordedTopic,
    messages_in,
    people_in,
    write_bag,
)
from recorded_transforms import recorded_tree, transform_message
from rig_files import camera_to_world, write_folder, write_pose2sim, write_qualisys
from simulated_rooms import looking_at
from strategies import standing_person

from metrabs_ros.camera import Camera
from metrabs_ros.conversions.transforms import quaternions
from metrabs_ros.pose_estimator import Poses
from metrabs_ros.recordings.annotate import annotate
from metrabs_ros.recordings.bags import Bag
from metrabs_ros.recordings.calibration import UnusableCalibration
from metrabs_ros.recordings.image_files import UnusableSource
from metrabs_ros.recordings.metadata import read_metadata
from metrabs_ros.recordings.options import AnnotateOptions
from metrabs_ros.recordings.typestore import MARKERS, TRANSFORMS, typestore
from metrabs_ros.recordings.video_recording import assign_cameras
from metrabs_ros.report.observations import read_observations
from metrabs_ros.report.page import write_report
from metrabs_ros.view.results import Results
from metrabs_ros.view.scene import Scene

FRAMES = 12
SHAPE = (480, 640)
FUSED = '/fusion/skeletons'
RATE_HZ = 30.0
PLACES_M = {'left': (4, -3, 1.6), 'right': (4.5, 3, 2), 'rear': (-5, 1, 1.8)}
MAX_ERROR_MM = 40.0
"""Maximum error of a person that already walks in the first image, at 30 Hz."""
LEVEL_STEP = 60
"""Difference of the grey levels that tell the model which camera and which frame an image is."""


def camera_at(place_m):
    """Return a camera that looks at the middle of the room, with the intrinsics of test bags."""
    extrinsic = looking_at(np.array(place_m, float), np.array((0, 0, 1.0))).extrinsic_matrix
    intrinsic = np.array([[FOCAL_PX, 0, 320], [0, FOCAL_PX, 240], [0, 0, 1]])
    return Camera(intrinsic, extrinsic_matrix=extrinsic, world_up_vector=(0, 0, 1))


CAMERAS = {name: camera_at(place_m) for name, place_m in PLACES_M.items()}


def image_of(name, frame):
    """Return an image, BGR, that tells camera (top) and frame (bottom)."""
    image = np.full((*SHAPE, 3), 30 + LEVEL_STEP * list(CAMERAS).index(name), np.uint8)
    image[SHAPE[0] // 2 :] = 10 + 15 * frame
    return image


def hips_mm(frame):
    """Return the hips of the people in the world: one walks, one stands."""
    return np.array([(30.0 * frame, -300, 900), (-200, 600, 900)])


class PeopleInRoom(KnownPeople):
    """Returns the people as the camera of an image sees them, with wrong distances."""

    def __init__(self, fails_after=None):
        super().__init__()
        self.fails_after = fails_after

    def poses_of(self, view, options):
        if self.fails_after is not None and len(self.seen) >= self.fails_after:
            raise KeyboardInterrupt
        self.seen.append(view.image.shape)
        top, bottom = (int(np.median(half)) for half in np.split(view.image, 2))
        index = round((top - 30) / LEVEL_STEP)
        camera = list(CAMERAS.values())[index]
        frame = round((bottom - 10) / 15)
        body_mm = standing_person(np.array([0, 0, 1.0]), facing=0.5)
        poses_mm = camera.from_world(hips_mm(frame)[:, None] + body_mm)
        points_px = view.camera.project(poses_mm)
        low, high = points_px.min(axis=1), points_px.max(axis=1)
        # Each camera has another error of the distances.
        scale = (0.92, 1.08, 1.04)[index]
        return Poses(
            np.concatenate([low, high - low], axis=1),
            np.array([0.9, 0.8]),
            scale * poses_mm[:, None],
            points_px[:, None],
        )


def static_poses(names):
    """Return a message of a bag with the poses of cameras."""
    transforms = []
    for name in names:
        pose = camera_to_world(CAMERAS[name])
        quaternion = quaternions(pose[None, :3, :3])[0]
        transforms.append(
            transform_message('map', f'{name}_optical', START_NS, pose[:3, 3], quaternion)
        )
    return recorded_tree('/tf_static', 0, *transforms)


def write_rig_bag(folder, posed=PLACES_M, names=PLACES_M):
    """Write a bag of cameras, whose images have the same stamps, and of the poses of some."""
    items = []
    for name in names:
        topic = RecordedTopic(f'/{name}/image_raw', f'{name}_optical', f'/{name}/camera_info')
        part = write_bag(
            folder.with_name(f'{folder.name}_{name}'),
            [image_of(name, i) for i in range(FRAMES)],
            [topic],
        )
        bag = Bag(part, print)
        items += [
            (message.topic.name, message.topic.msgtype, message.time_ns, bytes(message.data))
            for message in bag.messages()
        ]
        bag.close()
    items.sort(key=lambda item: item[2])
    return write_bag(folder, [], (), extra=[static_poses(posed), *items])


def write_videos(folder, names=PLACES_M, frames=None):
    """Write a video for each camera."""
    folder.mkdir(exist_ok=True)
    for name in names:
        fourcc = cv2.VideoWriter.fourcc(*'MJPG')
        writer = cv2.VideoWriter(str(folder / f'{name}.avi'), fourcc, RATE_HZ, SHAPE[::-1])
        for i in range((frames or {}).get(name, FRAMES)):
            writer.write(image_of(name, i))
        writer.release()
    return folder


def run(source, model=None, output=None, **options):
    """Annotate; return the summary, the folder of the results, and the warnings."""
    output = output or source.parent / 'results'
    warnings = []
    summary = annotate(
        source,
        output,
        AnnotateOptions(fuse=True, **options),
        model or PeopleInRoom(),
        warnings.append,
    )
    return summary, output, warnings


def errors_mm(output, frame_of):
    """Return the distances of fused people from the nearest true one, and their ids."""
    errors, ids = [], set()
    for stamp_ns, people in people_in(output, FUSED):
        true_mm = hips_mm(frame_of(stamp_ns))
        for person, position_mm in zip(people.ids.tolist(), people.positions_mm):
            errors.append(np.linalg.norm(true_mm - position_mm, axis=1).min())
            ids.add(person)
    return errors, ids


def frame_of_bag(stamp_ns):
    return round((stamp_ns - START_NS) / STEP_NS)


def frame_of_video(stamp_ns):
    return round(stamp_ns * RATE_HZ / 1e9)


def test_a_bag_of_several_cameras_has_each_person_once_in_the_world(tmp_path):
    summary, output, warnings = run(write_rig_bag(tmp_path / 'bag'), csv='')
    assert warnings == []
    assert (summary.fused_frames, summary.fused_people) == (FRAMES, 2)
    assert summary.processed == 3 * FRAMES
    errors, ids = errors_mm(output, frame_of_bag)
    assert len(ids) == 2
    # The first sets confirm the people.
    assert 2 * (FRAMES - 2) <= len(errors) <= 2 * FRAMES
    assert max(errors) < 10
    # A single camera is 8 % of the distance off.
    _, people = people_in(output, '/left/pose/skeletons')[5]
    alone_mm = CAMERAS['left'].to_world(people.positions_mm)
    assert np.linalg.norm(hips_mm(5)[:, None] - alone_mm, axis=-1).min(axis=0).max() > 250
    assert any('fused: 12 frame sets' in line for line in summary.lines())
    assert read_metadata(output).summary['fused_people'] == 2


def test_fused_people_have_markers_transforms_and_rows_of_tables(tmp_path):
    _, output, _ = run(write_rig_bag(tmp_path / 'bag'), csv='')
    *_, (_, _, data) = messages_in(output, '/fusion/markers')
    markers = typestore().deserialize_cdr(data, MARKERS).markers
    assert {marker.ns for marker in markers} == {'joints', 'bones', 'text', 'cameras'}
    assert {marker.header.frame_id for marker in markers} == {'map'}
    (cameras,) = (marker for marker in markers if marker.ns == 'cameras')
    places = {tuple(np.round([p.x, p.y, p.z], 3)) for p in cameras.points}
    assert set(PLACES_M.values()) <= places
    parents = collections.defaultdict(set)
    for _, _, data in messages_in(output, '/tf'):
        for transform in typestore().deserialize_cdr(data, TRANSFORMS).transforms:
            parents[transform.header.frame_id].add(transform.child_frame_id)
    assert parents['map'] == {'person_1', 'person_2'}
    assert parents['left_optical'] == {'left_person_1', 'left_person_2'}
    with open(output / 'joints.csv') as file:
        rows = list(csv.DictReader(file))
    counts = collections.Counter(row['camera'] for row in rows)
    sightings = sum(len(people) for _, people in people_in(output, FUSED))
    assert sightings >= 2 * (FRAMES - 2)
    assert counts == {
        **{f'/{name}/image_raw': 2 * 33 * FRAMES for name in PLACES_M},
        FUSED: 33 * sightings,
    }


def test_only_results_include_the_transforms_of_the_cameras(tmp_path):
    _, output, _ = run(write_rig_bag(tmp_path / 'bag'), only_results=True)
    assert messages_in(output, '/tf_static')
    assert not messages_in(output, '/left/image_raw')


@pytest.mark.parametrize('cut', [1, pytest.param(10, marks=pytest.mark.slow), 17])
def test_a_resumed_run_equals_an_uninterrupted_run(tmp_path, cut):
    source = write_rig_bag(tmp_path / 'bag')
    _, uninterrupted, _ = run(source, output=tmp_path / 'uninterrupted')
    with pytest.raises(KeyboardInterrupt):
        run(source, PeopleInRoom(cut), tmp_path / 'resumed')
    summary, resumed, _ = run(source, output=tmp_path / 'resumed')
    assert summary.resumed or cut == 1
    assert messages_in(resumed) == messages_in(uninterrupted)


def test_a_camera_without_a_pose_is_reported_and_the_others_are_fused(tmp_path):
    source = write_rig_bag(tmp_path / 'bag', posed=('left', 'right'))
    summary, output, (warning,) = run(source)
    assert warning.startswith("/rear/image_raw: 'rear_optical' is not in the transforms")
    assert summary.unused_cues['camera pose, /rear/image_raw, no transform'][0] == FRAMES
    errors, ids = errors_mm(output, frame_of_bag)
    assert len(ids) == 2
    assert max(errors) < 10
    assert len(people_in(output, '/rear/pose/skeletons')) == FRAMES


def test_a_wrong_fixed_frame_is_explained(tmp_path):
    source = write_rig_bag(tmp_path / 'bag', names=('left', 'right'))
    summary, output, warnings = run(source, fixed_frame='room')
    assert summary.fused_frames == 0
    assert "'room' is not in the transforms" in warnings[0]
    assert "no camera has a pose in the frame 'room'" in warnings[-1]
    assert len(people_in(output, '/left/pose/skeletons')) == FRAMES


def test_a_recording_of_one_camera_is_fused_with_a_warning(tmp_path):
    summary, _, warnings = run(write_rig_bag(tmp_path / 'bag', names=('left',)))
    assert 'has one camera only' in warnings[0]
    assert summary.fused_people == 2


CALIBRATIONS = {
    'Pose2Sim': lambda folder: write_pose2sim(folder / 'Calib.toml', CAMERAS, SHAPE),
    'Qualisys': lambda folder: write_qualisys(folder / 'Calib.qca.txt', CAMERAS, SHAPE),
    'ROS': lambda folder: write_folder(folder / 'rig', CAMERAS, SHAPE),
}


@pytest.mark.parametrize('kind', CALIBRATIONS)
def test_videos_are_fused_with_each_kind_of_calibration(tmp_path, kind):
    source = write_videos(tmp_path / 'videos')
    summary, output, warnings = run(source, calibration=CALIBRATIONS[kind](tmp_path))
    assert warnings == []
    assert summary.fused_frames == FRAMES
    errors, ids = errors_mm(output, frame_of_video)
    assert len(ids) == 2
    assert max(errors) < MAX_ERROR_MM
    (_, _, data), *_ = messages_in(output, '/tf_static')
    found = {
        own.child_frame_id: own for own in typestore().deserialize_cdr(data, TRANSFORMS).transforms
    }
    for name, place_m in PLACES_M.items():
        own = found[f'{name}_optical_frame']
        assert own.header.frame_id == 'map'
        place = own.transform.translation
        np.testing.assert_allclose((place.x, place.y, place.z), place_m, atol=1e-6)


def test_a_pose2sim_project_needs_no_options(tmp_path):
    project = tmp_path / 'project'
    for name in ('videos', 'calibration'):
        (project / name).mkdir(parents=True)
    write_videos(project / 'videos')
    with pytest.raises(UnusableCalibration, match='has no calibration; give'):
        run(project)
    write_pose2sim(project / 'calibration' / 'Calib.toml', CAMERAS, SHAPE)
    summary, output, _ = run(project)
    assert summary.fused_people == 2
    with pytest.raises(KeyboardInterrupt):
        run(project, PeopleInRoom(10), tmp_path / 'resumed')
    summary, resumed, _ = run(project, output=tmp_path / 'resumed')
    assert summary.resumed
    assert messages_in(resumed) == messages_in(output)


def test_a_video_that_ends_early_is_reported_and_the_others_continue(tmp_path):
    source = write_videos(tmp_path / 'videos', frames={'right': 6})
    calibration = write_pose2sim(tmp_path / 'Calib.toml', CAMERAS, SHAPE)
    summary, output, (warning,) = run(source, calibration=calibration)
    assert 'right.avi ends at 0.20 s, after 6 frames' in warning
    assert summary.fused_frames == FRAMES
    errors, ids = errors_mm(output, frame_of_video)
    assert len(ids) == 2
    assert len(errors) >= 2 * (FRAMES - 2)
    assert max(errors) < MAX_ERROR_MM


def test_videos_and_cameras_without_each_other_are_reported(tmp_path):
    source = write_videos(tmp_path / 'videos')
    (source / 'broken.avi').write_bytes(b'RIFF\x00\x00')
    cameras = {**CAMERAS, 'broken': CAMERAS['rear'], 'unused': CAMERAS['rear']}
    del cameras['rear']
    calibration = write_pose2sim(tmp_path / 'Calib.toml', cameras, SHAPE)
    summary, output, warnings = run(source, calibration=calibration)
    assert 'broken.avi cannot be read as a video' in warnings[0]
    assert f'rear.avi is not processed: {calibration} has no camera of this name' in warnings[1]
    assert 'has no video of the calibrated cameras unused' in warnings[2]
    assert len(warnings) == 3
    assert summary.fused_people == 2
    assert max(errors_mm(output, frame_of_video)[0]) < MAX_ERROR_MM


def test_a_calibration_for_another_image_size_is_reported(tmp_path):
    source = write_videos(tmp_path / 'videos')
    folder = write_folder(tmp_path / 'rig', CAMERAS, SHAPE)
    wrong = folder / 'rear.yaml'
    wrong.write_text(wrong.read_text().replace('image_width: 640', 'image_width: 480'))
    summary, output, _ = run(source, calibration=folder)
    ((cause, (count, example)),) = summary.unusable.items()
    assert (cause, count) == ('camera_info size, rear', FRAMES)
    assert 'rear.avi: the images have 640 x 480 pixels, but the calibration is for 480' in example
    assert max(errors_mm(output, frame_of_video)[0]) < MAX_ERROR_MM


def test_options_that_do_not_fit_are_rejected(tmp_path):
    source = write_videos(tmp_path / 'videos')
    with pytest.raises(UnusableSource, match='neither'):
        run(source / 'left.avi')
    with pytest.raises(UnusableSource, match='no effect on a folder of videos'):
        run(source, fov_degrees=60)
    with pytest.raises(ValueError, match='only with --fuse'):
        AnnotateOptions(calibration=tmp_path / 'Calib.toml')
    other = write_pose2sim(tmp_path / 'Calib.toml', {'a': CAMERAS['left']}, SHAPE)
    with pytest.raises(UnusableSource, match=r'none of the videos left\.avi, rear\.avi'):
        run(source, calibration=other)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(UnusableSource, match='has no videos'):
        run(tmp_path / 'empty')


def test_videos_are_assigned_to_cameras_by_their_names():
    assert assign_cameras(['cam02', 'cam01'], ['cam01', 'cam02']) == {0: 'cam02', 1: 'cam01'}
    assert assign_cameras(['cam01'], ['int_cam01_img', 'int_cam02_img']) == {0: 'int_cam01_img'}
    assert assign_cameras(['Miqus_7_26578', 'x'], ['26578', '2657']) == {0: '26578'}
    # Camera 1 is not a part of camera 10, and several videos of a camera are not known.
    assert assign_cameras(['cam_10', 'cam_1'], ['10', '1']) == {0: '10', 1: '1'}
    assert assign_cameras(['a_1', 'b_1'], ['1']) == {}
    # By order, if no name matches.
    assert assign_cameras(['v10', 'v9'], ['front', 'rear']) == {1: 'front', 0: 'rear'}
    assert assign_cameras(['v10', 'v9', 'v8'], ['front', 'rear']) == {}


def test_the_report_shows_fused_people_once_with_the_cameras(tmp_path):
    _, output, _ = run(write_rig_bag(tmp_path / 'bag'), only_results=True)
    fused, *others = read_observations(output, print)
    assert fused.topic == FUSED
    assert fused.ground_axes == (0, 1)
    assert fused.camera_names == tuple(sorted(PLACES_M))
    np.testing.assert_allclose(fused.cameras_m, [PLACES_M[n] for n in sorted(PLACES_M)], atol=1e-6)
    assert [own.topic for own in others] == [f'/{n}/pose/skeletons' for n in sorted(PLACES_M)]
    write_report(output, tmp_path / 'report.html', print)
    page = (tmp_path / 'report.html').read_text()
    assert page.count('alt="Top view"') == page.count('alt="People over time"') == 1
    assert page.count('alt="Frame rate"') == 4
    assert 'The triangles are the cameras' in page


def test_the_view_shows_fused_people_once_with_the_cameras(tmp_path):
    _, output, _ = run(write_rig_bag(tmp_path / 'bag'))
    recorded = Results(output, print)
    shown = collections.defaultdict(list)
    scene = Scene(recorded.cameras, without_images=recorded.fused)
    for name in ('show_people', 'show_people_on_image', 'show_camera'):
        original = getattr(scene, name)

        def record(stamp_s, camera, *rest, name=name, original=original):
            shown[name, camera].append(rest)
            original(stamp_s, camera, *rest)

        setattr(scene, name, record)
    recorded.show_in(scene)
    recorded.close()
    assert scene._z_up
    assert {camera for name, camera in shown if name == 'show_people'} == {'fused people'}
    assert len(shown['show_people', 'fused people']) == FRAMES
    for name, place_m in PLACES_M.items():
        assert len(shown['show_people_on_image', name]) == FRAMES
        *_, pose = shown['show_camera', name][0]
        np.testing.assert_allclose(pose.translation_m, place_m, atol=1e-6)


def test_the_summary_of_results_is_json(tmp_path):
    summary, output, _ = run(write_rig_bag(tmp_path / 'bag', names=('left', 'right')))
    assert json.loads(json.dumps(read_metadata(output).summary))['fused_frames'] == FRAMES
    assert summary.fused_sightings == sum(len(people) for _, people in people_in(output, FUSED))
