"""The accuracy benchmark reports known differences from the true poses of the recording."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import accuracy
import accuracy_recording
import numpy as np
import pytest

from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import COCO_17
from metrabs_ros.weights.download import DownloadError

MIRROR = COCO_17.mirror


@pytest.fixture(scope='module')
def cameras():
    return accuracy_recording.read_cameras(pathlib.Path('unused'))


@pytest.fixture(scope='module')
def truth():
    return accuracy_recording.read_truth()


@pytest.fixture(scope='module')
def others():
    return accuracy_recording.read_others()


def people_with(poses_mm, recorded):
    """Return people with poses [N, 17, 3] of the world, as one camera sees them."""
    poses_mm = recorded.camera.from_world(np.asarray(poses_mm))
    prediction = {
        'boxes': np.tile([0.0, 0, 1, 1, 0.9], (len(poses_mm), 1)),
        'poses3d': poses_mm,
        'poses2d': recorded.camera.project(poses_mm),
    }
    return People.of_prediction(prediction, COCO_17, recorded.image_shape)


def true_people(cameras, truth, change=lambda poses_mm, camera: poses_mm):
    """Return a perfect result for every frame with truth, changed in the world frame."""
    joints_mm = interpolated(truth.poses_mm[0])
    return [
        accuracy.FramePeople(
            c, int(frame), people_with(change(joints_mm[i][None], recorded.camera), recorded)
        )
        for c, recorded in enumerate(cameras)
        for i, frame in enumerate(truth.frames)
    ]


def interpolated(poses_mm):
    """Replace unknown joints of a series of poses [F, 17, 3], which no network leaves out."""
    joints_mm = poses_mm.reshape(len(poses_mm), -1).copy()
    times = np.arange(len(poses_mm))
    for values in joints_mm.T:
        known = np.isfinite(values)
        values[:] = np.interp(times, times[known], values[known]) if known.any() else 0
    return joints_mm.reshape(poses_mm.shape)


def summary(found, cameras, truth, others):
    rows = accuracy.summarise(accuracy.compare(found, cameras, truth, others), cameras)
    return {row['camera']: row for row in rows}


def test_the_truth_fits_the_image_points_it_was_made_of(cameras, truth):
    with np.load(accuracy_recording.DATA / 'truth_single.npz') as arrays:
        points_px = arrays['points_px'][0].astype(float)
    for c, recorded in enumerate(cameras):
        projected_px = recorded.camera.project(recorded.camera.from_world(truth.poses_mm[0]))
        off_px = np.linalg.norm(projected_px - points_px[:, c], axis=-1)[:, accuracy.BODY]
        assert np.nanmedian(off_px) < 8


def test_the_true_man_has_plausible_bones_and_stands_on_the_beam(truth):
    poses_mm = truth.poses_mm[0]
    thigh_mm = np.linalg.norm(poses_mm[:, 11] - poses_mm[:, 13], axis=-1)
    assert 380 < np.nanmedian(thigh_mm) < 480
    lower_ankle_mm = np.fmin(*poses_mm[:, 15:, 2].T)
    assert np.nanmedian(lower_ankle_mm) == pytest.approx(145, abs=20)


def test_true_poses_have_no_errors(cameras, truth, others):
    row = summary(true_people(cameras, truth), cameras, truth, others)['all']
    assert row['found'] == row['visible'] > 100
    assert row['false'] == 0
    for name in ('depth_percent', 'hips_mm', 'lateral_mm', 'root_relative_mpjpe_mm', 'image_px'):
        assert row[name] == pytest.approx(0, abs=1e-3), name
    assert row['legs_swapped_percent'] == 0
    assert row['within_1_std_percent'] == [100, 100, 100]


def test_poses_that_are_scaled_about_the_camera_have_only_a_depth_error(cameras, truth, others):
    def nearer(poses_mm, camera):
        return camera.position_mm + 0.95 * (poses_mm - camera.position_mm)

    rows = summary(true_people(cameras, truth, nearer), cameras, truth, others)
    for row in rows.values():
        assert row['depth_percent'] == pytest.approx(-5, abs=0.01)
        assert row['depth_absolute_percent'] == pytest.approx(5, abs=0.01)
        assert row['hips_mm'] == pytest.approx(0.05 * row['distance_mm'], rel=1e-3)
        assert row['lateral_mm'] == pytest.approx(0, abs=0.01)
        assert row['image_px'] == pytest.approx(0, abs=0.01)
        assert row['aligned_mpjpe_mm'] == pytest.approx(0, abs=0.01)
    assert {row['found'] for row in rows.values()} == {34, 136}


def test_mirrored_poses_have_swapped_legs_and_arms(cameras, truth, others):
    found = true_people(cameras, truth, lambda poses_mm, camera: poses_mm[:, MIRROR])
    row = summary(found, cameras, truth, others)['all']
    assert row['found'] == row['visible']
    assert row['legs_swapped_percent'] > 80
    assert row['depth_percent'] == pytest.approx(0, abs=0.01)


def test_a_second_detection_of_a_person_and_a_detection_elsewhere_are_false(
    cameras, truth, others
):
    frame = int(truth.frames[2])
    pose_mm = interpolated(truth.poses_mm[0])[2]
    elsewhere_mm = pose_mm + np.array([0, 0, 900])
    people = people_with([pose_mm, pose_mm + 5, elsewhere_mm], cameras[2])
    comparison = accuracy.compare(
        [accuracy.FramePeople(2, frame, people)], cameras, truth, others=no_one(truth)
    )
    assert comparison.false.tolist() == [0, 0, 2, 0]
    assert len(comparison.matches.frames) == 1


def test_the_woman_in_the_background_is_not_false(cameras, truth, others):
    woman_mm = others.poses_mm[1]
    known = np.flatnonzero(np.isfinite(woman_mm[:, accuracy.BODY]).all(axis=(1, 2)))[0]
    frame = int(others.frames[known])
    for c in (0, 1):
        people = people_with(np.nan_to_num(woman_mm[known])[None], cameras[c])
        found = [accuracy.FramePeople(c, frame, people)]
        found = with_man(found, truth, cameras)
        assert accuracy.compare(found, cameras, truth, others).false[c] == 0
        only_man = accuracy_recording.Truth(others.frames, others.poses_mm[:1])
        assert accuracy.compare(found, cameras, truth, only_man).false[c] == 1


def no_one(truth):
    return accuracy_recording.Truth(truth.frames, truth.poses_mm[:0])


def with_man(found, truth, cameras):
    """Add the true man to results."""
    everyone = []
    for own in found:
        man_mm = interpolated(truth.poses_mm[0])[truth.frames == own.frame]
        people = People.concatenate([own.people, people_with(man_mm, cameras[own.camera])])
        everyone.append(dataclasses.replace(own, people=people))
    return everyone


def test_results_without_people_are_reported(cameras, truth, others):
    found = [accuracy.FramePeople(0, int(frame), People.empty(COCO_17)) for frame in truth.frames]
    row = summary(found, cameras, truth, others)['all']
    assert (row['found'], row['visible'], row['false']) == (0, 34, 0)
    key = {'model': 'blazepose', 'configuration': 'default', 'mode': 'detect'}
    assert any('0 of 34' in line for line in accuracy.report({'machine': '', 'rows': [key | row]}))


def test_missed_people_lower_the_number_found(cameras, truth, others):
    found = true_people(cameras, truth)
    found[0] = dataclasses.replace(found[0], people=People.empty(COCO_17))
    visible_at = [own for own in found[1:] if own.camera == 0]
    row = summary([found[0], *visible_at], cameras, truth, others)['cam01']
    assert row['visible'] - row['found'] in (0, 1)
    assert row['images'] == len(truth.frames)


def test_rows_of_other_models_are_kept():
    def row(model, value):
        return {
            'model': model,
            'configuration': 'default',
            'mode': 'detect',
            'camera': 'all',
            'hips_mm': value,
        }

    merged = accuracy.merge_rows([row('a', 1), row('b', 2)], [row('b', 3)])
    assert [(own['model'], own['hips_mm']) for own in merged] == [('a', 1), ('b', 3)]


def test_results_are_reported_as_aligned_tables(cameras, truth, others):
    comparison = accuracy.compare(true_people(cameras, truth), cameras, truth, others)
    key = {'model': 'blazepose', 'configuration': 'default', 'mode': 'detect'}
    rows = [key | row for row in accuracy.summarise(comparison, cameras)]
    json.dumps(rows)
    lines = accuracy.report({'machine': 'a machine', 'rows': rows})
    table = lines[lines.index('blazepose, default, detect') + 1 :][:6]
    assert len({len(line) for line in table}) == 1
    assert '34 of 34' in table[1]


def test_without_a_network_the_message_says_what_to_do(tmp_path, monkeypatch):
    def fail(requirement, folder):
        raise DownloadError('pip could not download pose2sim: no route to host')

    monkeypatch.setenv('METRABS_ROS_CACHE', str(tmp_path))
    monkeypatch.setattr(accuracy_recording, 'download_wheel', fail)
    with pytest.raises(accuracy_recording.RecordingError, match=r'no route to host.*--recording'):
        accuracy_recording.find_videos(None)


def test_a_folder_without_or_with_other_videos_is_rejected(tmp_path, capsys):
    assert accuracy.main(['--recording', str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err
    for name in accuracy_recording.VIDEO_SHA256:
        (tmp_path / f'{name}.mp4').write_bytes(b'other')
    with pytest.raises(accuracy_recording.RecordingError, match=r'cam01\.mp4.*checksum'):
        accuracy_recording.find_videos(tmp_path)
