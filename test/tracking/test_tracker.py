"""Tracks keep ids, velocities and finite values under irregular stamps and detections."""

from __future__ import annotations

import dataclasses
import pickle
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import IMAGE_SHAPE, INTRINSICS, add_noise, people_from, standing_body

import metrabs_ros
from metrabs_ros.camera import Camera
from metrabs_ros.people import UNKNOWN_ID, People
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, COCO_17
from metrabs_ros.tracking.tracker import Tracker
from metrabs_ros.tracking.tracks import MAX_ID

CAMERA = Camera(INTRINSICS)
NO_PEOPLE = People.empty(COCO_17)
A, B = (-800.0, 100.0, 4000.0), (900.0, 100.0, 6000.0)


def people_at(*positions_mm, camera=CAMERA):
    """Return detections of people that stand at positions [3], world frame, millimetres."""
    positions = np.array(positions_mm, float).reshape(-1, 1, 3)
    return people_from(camera.from_world(positions + standing_body()), camera)


class Stream:
    """A tracker with a clock that advances by one frame period per call."""

    def __init__(self, rate_hz=30.0, **options):
        self.tracker = Tracker(**options)
        self.step_s = 1 / rate_hz
        self.now_s = 100.0

    def update(self, *people, step_s=None, camera=CAMERA):
        """Return the people after one or more updates at the same stamp."""
        self.now_s += self.step_s if step_s is None else step_s
        for detections in people:
            last = self.tracker.update(detections, self.now_s, camera, IMAGE_SHAPE)
        return last

    def ids(self, people, **options):
        return self.update(people, **options).ids.tolist()


def test_ids_do_not_depend_on_the_order_of_detections():
    stream = Stream()
    assert [
        stream.ids(people_at(A, B)),
        stream.ids(people_at(B, A)),
        stream.ids(people_at(A, B)),
    ] == [[1, 2]] * 3
    assert stream.tracker.detection_ids.tolist() == [1, 2]
    stream.update(people_at(B, A))
    assert stream.tracker.detection_ids.tolist() == [2, 1]


def test_new_people_are_published_at_once_in_the_first_frame_and_later_after_min_hits():
    stream = Stream(min_hits=3)
    assert stream.ids(people_at(A)) == [1]
    for _ in range(5):
        stream.update(people_at(A))
    assert [stream.ids(people_at(A, B)) for _ in range(4)] == [[1], [1], [1, 2], [1, 2]]


def test_new_people_are_published_at_once_at_low_frame_rates_but_not_extrapolated():
    stream = Stream(rate_hz=2)
    for _ in range(5):
        stream.update(people_at(A))
    assert stream.ids(people_at(A, B)) == [1, 2]
    assert stream.ids(people_at(A)) == [1]


def test_single_false_detection_is_not_published_and_its_id_is_not_reused():
    stream = Stream()
    for _ in range(5):
        stream.update(people_at(A))
    assert stream.ids(people_at(A, B)) == [1]
    for _ in range(5):
        assert stream.ids(people_at(A)) == [1]
    for _ in range(3):
        last = stream.ids(people_at(A, B))
    assert last == [1, 3]


def test_hidden_people_are_extrapolated_for_max_lost():
    stream = Stream(max_lost=0.5)
    for i in range(30):
        stream.update(people_at((A[0] + 40 * i, *A[1:])))
    for i in range(30, 44):
        people = stream.update(NO_PEOPLE)
        assert people.ids.tolist() == [1]
        assert people.seen.tolist() == [False]
        np.testing.assert_allclose(people.positions_mm[0, 0], A[0] + 40 * i, atol=60)
    assert (people.joint_std_mm > 150).all()
    assert stream.ids(people_at((A[0] + 40 * 44, *A[1:]))) == [1]
    for _ in range(16):
        last = stream.ids(NO_PEOPLE)
    assert last == []
    for _ in range(3):
        last = stream.ids(people_at(A))
    assert last == [2]


def test_people_outside_the_image_are_not_published_but_keep_their_id():
    stream = Stream()
    for i in range(30):
        stream.update(people_at((1800.0 + 40 * i, 100.0, 4000.0)))
    for _ in range(8):
        left = stream.update(NO_PEOPLE)
    assert not len(left)
    back = [stream.ids(people_at((2900.0, 100.0, 4000.0))) for _ in range(4)]
    assert back[-1] == [1]


def test_returned_people_are_not_modified_by_later_frames():
    rng, stream, returned = np.random.default_rng(0), Stream(rate_hz=2), []
    for i in range(40):
        # Jumps that are too far for a person: the track is lost, and soon detected again.
        where = A if i % 20 < 10 else (A[0] + 1800, *A[1:])
        people = stream.update(people_from(add_noise(people_at(where, B).poses3d_mm, rng), CAMERA))
        returned.append(
            (people, {k: np.copy(v) for k, v in vars(people).items() if k != 'skeleton'})
        )
    assert [people.ids.tolist() for people, _ in returned[-5:]] == [[1, 2]] * 5
    for people, before in returned:
        for name, values in before.items():
            np.testing.assert_array_equal(getattr(people, name), values)


def test_ages_and_velocities():
    stream = Stream()
    for i in range(31):
        people = stream.update(people_at((A[0] + 40 * i, *A[1:])))
    assert people.ages_s[0] == pytest.approx(1.0)
    np.testing.assert_allclose(people.velocities_mm_s[0], [[1200, 0, 0]] * 17, atol=40)
    later = people.extrapolated(0.1)
    np.testing.assert_allclose(later.poses3d_mm - people.poses3d_mm, [[[120, 0, 0]] * 17], atol=4)
    np.testing.assert_array_equal(later.poses2d_px, people.poses2d_px)


def test_without_smoothing_poses_are_unchanged():
    rng, stream = np.random.default_rng(0), Stream(smoothing=0.0)
    for _ in range(20):
        detections = people_from(add_noise(people_at(A, B).poses3d_mm, rng), CAMERA)
        people = stream.update(detections)
        np.testing.assert_array_equal(people.poses3d_mm, detections.poses3d_mm)
        np.testing.assert_array_equal(people.poses2d_px, detections.poses2d_px)
        np.testing.assert_array_equal(people.boxes_px, detections.boxes_px)


def test_more_smoothing_gives_less_jitter():
    jitter = []
    for smoothing in (0.1, 0.5, 1.0):
        rng, stream = np.random.default_rng(0), Stream(smoothing=smoothing)
        poses = [
            stream.update(people_from(add_noise(people_at(A).poses3d_mm, rng), CAMERA)).poses3d_mm
            for _ in range(300)
        ]
        jitter.append(np.array(poses)[100:].std(axis=0).mean())
    assert jitter[0] > jitter[1] > jitter[2]


def test_image_points_are_projections_of_the_poses():
    rng, stream = np.random.default_rng(0), Stream()
    for _ in range(10):
        people = stream.update(people_from(add_noise(people_at(A).poses3d_mm, rng), CAMERA))
    np.testing.assert_allclose(people.poses2d_px, CAMERA.project(people.poses3d_mm))


def turned(degrees):
    yaw = np.radians(degrees)
    extrinsics = np.eye(4)
    extrinsics[0, [0, 2]] = np.cos(yaw), -np.sin(yaw)
    extrinsics[2, [0, 2]] = np.sin(yaw), np.cos(yaw)
    return Camera(INTRINSICS, extrinsic_matrix=extrinsics)


def test_people_do_not_move_in_the_world_if_the_camera_turns():
    stream = Stream(rate_hz=10)
    for i in range(10):
        camera = turned(6 * i - 30)
        people = stream.update(people_at(A, B, camera=camera), camera=camera)
        assert people.ids.tolist() == [1, 2]
    assert np.abs(people.velocities_mm_s).max() < 50
    np.testing.assert_allclose(
        camera.to_world(people.poses3d_mm)[:, 0], np.array([A, B]) + standing_body()[0], atol=20
    )


def test_velocities_are_in_the_camera_frame():
    camera = turned(90)
    stream = Stream()
    for i in range(30):
        people = stream.update(people_at((5000.0, 100.0, 30.0 * i), camera=camera), camera=camera)
    np.testing.assert_allclose(people.velocities_mm_s[0, 0], [-900, 0, 0], atol=30)


def test_stamps_that_jump_back_reset_the_tracks_and_ids_are_not_reused():
    stream = Stream()
    assert stream.ids(people_at(A)) == [1]
    assert stream.ids(people_at(A), step_s=-50.0) == [2]
    assert stream.ids(people_at(A)) == [2]


def test_slightly_earlier_stamps_do_not_reset_the_tracks():
    stream = Stream()
    for _ in range(5):
        stream.update(people_at(A))
    assert stream.ids(people_at(A), step_s=-0.02) == [1]


def test_images_with_equal_stamps_do_not_change_velocities():
    stream = Stream()
    for _ in range(5):
        people = stream.update(people_at(A), people_at(A))
    assert people.ids.tolist() == [1]
    assert np.isfinite(people.velocities_mm_s).all()
    np.testing.assert_allclose(people.velocities_mm_s, 0, atol=10)


def test_changes_of_the_frame_rate_keep_ids_and_velocities():
    stream, where_mm = Stream(), A[0]
    for step_s in [0.033] * 20 + [0.2] * 10 + [0.01] * 30 + [0.4] * 3:
        where_mm += 1000 * step_s
        people = stream.update(people_at((where_mm - 2000, *A[1:])), step_s=step_s)
        assert people.ids.tolist() == [1]
    np.testing.assert_allclose(people.velocities_mm_s[0, :, 0], 1000, atol=150)


def test_long_gap_resets_the_tracks():
    stream = Stream()
    for _ in range(10):
        stream.update(people_at(A))
    assert stream.ids(people_at(A), step_s=5.0) == [2]


def test_low_frame_rate_does_not_reset_the_tracks():
    stream = Stream(rate_hz=0.5)
    for _ in range(5):
        assert stream.ids(people_at(A)) == [1]


def test_people_on_the_same_line_of_sight_keep_their_ids():
    stream = Stream(rate_hz=10)
    rng = np.random.default_rng(0)
    for i in range(60):
        # One person walks past another along the line of sight.
        near, far = (100.0, 100.0, 3000.0 + 80 * i), (-200.0, 100.0, 6000.0)
        poses_mm = np.concatenate([people_at(near).poses3d_mm, people_at(far).poses3d_mm])
        people = stream.update(people_from(add_noise(poses_mm, rng), CAMERA))
    assert people.ids.tolist() == [1, 2]
    assert people.positions_mm[0, 2] > people.positions_mm[1, 2]


def test_duplicate_detections_do_not_start_a_track():
    stream = Stream()
    for _ in range(10):
        people = stream.update(people_at(A, (A[0] + 50, *A[1:])))
    assert people.ids.tolist() == [1]


def test_people_with_a_nan_joint_are_ignored():
    stream = Stream()
    broken = people_at(A, B)
    poses_mm = broken.poses3d_mm.copy()
    poses_mm[0, 3] = np.nan
    for _ in range(4):
        people = stream.update(dataclasses.replace(broken, poses3d_mm=poses_mm))
    assert len(people) == 1
    assert stream.tracker.detection_ids.tolist() == [UNKNOWN_ID, people.ids[0]]
    assert people.finite().all()


def test_nan_stamp_is_rejected():
    with pytest.raises(ValueError, match='stamp_s is nan'):
        Tracker().update(NO_PEOPLE, np.nan, CAMERA, IMAGE_SHAPE)


def test_change_of_skeleton_resets_the_tracks():
    stream = Stream()
    assert stream.ids(people_at(A)) == [1]
    poses_mm = np.repeat(people_at(A).poses3d_mm, 2, axis=1)[:, :33]
    assert stream.ids(people_from(poses_mm, CAMERA, BLAZEPOSE_33)) == [2]


def test_predictions_follow_the_velocities():
    tracker = Tracker()
    assert tracker.predict(0.0, CAMERA, IMAGE_SHAPE) is None
    for i in range(30):
        tracker.update(people_at((A[0] + 40 * i, *A[1:])), i / 30, CAMERA, IMAGE_SHAPE)
    tracker.update(NO_PEOPLE, 1.0, CAMERA, IMAGE_SHAPE)
    expected = tracker.predict(31 / 30, CAMERA, IMAGE_SHAPE)
    truth = people_at((A[0] + 40 * 31, *A[1:]))
    assert expected.ids.tolist() == [1]
    assert expected.seen.tolist() == [False]
    np.testing.assert_allclose(expected.poses2d_px, truth.poses2d_px, atol=10)
    np.testing.assert_allclose(expected.boxes_px, truth.boxes_px, atol=10)


@pytest.mark.slow
def test_predictions_of_a_model_can_be_tracked(model, street):
    tracker, skeleton = metrabs_ros.Tracker(), model.convention('coco_17').skeleton
    camera = metrabs_ros.Camera(np.array([[900.0, 0, 384], [0, 900, 288], [0, 0, 1]]))
    for stamp_s in (0.0, 0.1, 0.2):
        prediction = model.detect_poses(
            street, intrinsic_matrix=camera.intrinsic_matrix, skeleton='coco_17'
        )
        detections = metrabs_ros.People.of_prediction(prediction, skeleton, street.shape)
        people = tracker.update(detections, stamp_s, camera, street.shape)
    assert len(people) == len(prediction['boxes']) >= 5
    np.testing.assert_allclose(people.poses3d_mm, prediction['poses3d'], atol=2)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    'name',
    ['confidence', 'boxes_px', 'poses3d_mm', 'poses2d_px', 'joint_confidence', 'joint_std_mm'],
)
def test_detections_with_values_that_are_not_finite_are_ignored(name, value):
    stream = Stream()
    for i in range(6):
        detections = people_at(A, B)
        values = getattr(detections, name).copy()
        values[i % 2] = value
        people = stream.update(dataclasses.replace(detections, **{name: values}))
        assert stream.tracker.detection_ids[i % 2] == UNKNOWN_ID
        for array in (people.confidence, people.joint_std_mm, people.velocities_mm_s):
            assert np.isfinite(array).all()
        assert people.finite().all()


def test_lost_tracks_are_deleted_even_if_stamps_do_not_advance():
    stream = Stream(max_lost=0.5)
    for _ in range(30):
        stream.update(people_at(A))
    last = [len(stream.update(NO_PEOPLE, step_s=0.0)) for _ in range(130)]
    assert last[-1] == 0
    assert not len(stream.tracker.predict(stream.now_s, CAMERA, IMAGE_SHAPE))


def test_alternating_stamps_keep_ids():
    stream = Stream()
    for i in range(60):
        people = stream.update(people_at(A), step_s=(0.1, -0.05)[i % 2])
        assert people.ids.tolist() == [1]
        assert np.abs(people.velocities_mm_s).max() < 50
        assert people.ages_s[0] >= 0


def test_stamps_that_jump_by_hours_reset_the_tracks():
    stream = Stream()
    assert [stream.ids(people_at(A), step_s=step_s) for step_s in (0, 3600.0, 1e9, 1e300)] == [
        [1],
        [2],
        [3],
        [4],
    ]
    assert stream.ids(people_at(A), step_s=-2e300) == [5]


def test_extreme_stamps():
    tracker, largest = Tracker(), sys.float_info.max
    for stamp_s in (-largest, -largest, largest):
        people = tracker.update(people_at(A), stamp_s, CAMERA, IMAGE_SHAPE)
        assert people.ages_s.tolist() == [0]


def test_velocities_with_several_images_per_stamp():
    rng, stream = np.random.default_rng(0), Stream()
    for i in range(60):
        where = (A[0] + 40 * i - 600, *A[1:])
        frames = [
            people_from(add_noise(people_at(where).poses3d_mm, rng), CAMERA) for _ in range(5)
        ]
        people = stream.update(*frames)
    np.testing.assert_allclose(people.velocities_mm_s[0, :, 0], 1200, atol=500)
    assert np.abs(people.velocities_mm_s).max() < 2000


def test_five_hundred_detections_take_less_than_a_second():
    rng, stream = np.random.default_rng(0), Stream()
    for _ in range(4):
        positions = rng.uniform((-9000, 100, 6000), (9000, 100, 40000), (500, 3))
        detections = people_at(*positions)
        start_s = time.process_time()
        stream.update(detections)
        assert time.process_time() - start_s < 1


@pytest.mark.slow
def test_memory_does_not_grow():
    rng, stream, sizes = np.random.default_rng(0), Stream(), []
    for i in range(2000):
        positions = [A, *rng.uniform((-3000, 100, 4000), (3000, 100, 12000), (3, 3))]
        stream.update(people_at(*positions[: 1 + (i % 40 < 20) * 3]))
        if i % 500 == 499:
            sizes.append(len(pickle.dumps(stream.tracker)))
    assert max(sizes) < 2 * min(sizes)


def test_ids_fit_into_32_bits_and_are_unique():
    stream = Stream()
    assert stream.ids(people_at(A)) == [1]
    stream.tracker._next_id = MAX_ID
    for _ in range(3):
        last = stream.ids(people_at(A, B, (0.0, 100.0, 9000.0)))
    assert last == [1, MAX_ID, 2]


@pytest.mark.parametrize(
    'options',
    [
        {'max_lost': np.nan},
        {'max_lost': -1.0},
        {'min_hits': 0},
        {'min_hits': np.nan},
        {'smoothing': np.nan},
        {'smoothing': 1.5},
        {'smoothing': -0.1},
        {'stature_mm': 1.75},
        {'stature_mm': np.nan},
        {'stature_bias': 0.0},
        {'stature_bias': np.nan},
    ],
)
def test_options_out_of_range_are_rejected(options):
    (name,) = options
    with pytest.raises(ValueError, match=f'{name} is '):
        Tracker(**options)


offsets = st.floats(-1e5, 1e5) | st.floats(-1e13, 1e13)


@pytest.mark.filterwarnings('error')
@settings(max_examples=60)
@given(st.lists(st.tuples(offsets, offsets, st.floats(-180, 180)), max_size=12))
def test_values_are_finite_for_any_camera_pose(cameras):
    tracker = Tracker()
    for i, (x_mm, z_mm, yaw_degrees) in enumerate(cameras):
        extrinsics = turned(yaw_degrees).extrinsic_matrix.copy()
        extrinsics[[0, 2], 3] = x_mm, z_mm
        camera = Camera(INTRINSICS, extrinsic_matrix=extrinsics)
        expected = tracker.predict(i / 10, camera, IMAGE_SHAPE)
        assert expected is None or expected.finite().all()
        people = tracker.update(people_at(A, B), i / 10, camera, IMAGE_SHAPE)
        assert people.finite().all()
        assert np.isfinite(people.velocities_mm_s).all()


positions = st.tuples(st.floats(-3e3, 3e3), st.floats(-1e3, 1e3), st.floats(-100, 2e4))
stamps = st.floats(-1e9, 1e9) | st.floats(0, 3)


@settings(max_examples=60)
@given(st.lists(st.tuples(stamps, st.lists(positions, max_size=4)), max_size=12))
def test_ids_are_unique_and_values_finite_for_any_detections(frames):
    tracker, before = Tracker(), set()
    for stamp_s, where in frames:
        people = tracker.update(people_at(*where), stamp_s, CAMERA, IMAGE_SHAPE)
        ids = people.ids.tolist()
        assert len(set(ids)) == len(ids)
        assert people.finite().all()
        assert np.isfinite(people.velocities_mm_s).all()
        assert (people.ages_s >= 0).all()
        before |= set(ids)
    assert all(person >= 1 for person in before)


def test_people_keep_the_image_points_of_their_detections():
    stream, points = Stream(), people_at(A, B)
    found_px = points.poses2d_px + np.array([2.0, -1.0])
    points = dataclasses.replace(points, network_poses2d_px=found_px)
    for _ in range(20):
        people = stream.update(points)
    np.testing.assert_array_equal(people.network_poses2d_px, points.network_poses2d_px)
    people = stream.update(points.select([1]))
    np.testing.assert_array_equal(people.network_poses2d_px[1], points.network_poses2d_px[1])
    assert people.seen.tolist() == [False, True]
    np.testing.assert_array_equal(people.network_poses2d_px[0], people.poses2d_px[0])
