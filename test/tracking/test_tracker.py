"""Who was seen keeps an id and a velocity, whatever time and the network do."""

from __future__ import annotations

import dataclasses
import pickle
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import IMAGE_SHAPE, INTRINSICS, noisy, people_from, standing_body

import metrabs_ros
from metrabs_ros.camera import Camera
from metrabs_ros.people import UNKNOWN_ID, People
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, COCO_17
from metrabs_ros.tracking.tracker import Tracker
from metrabs_ros.tracking.tracks import MAX_ID

CAMERA = Camera(INTRINSICS)
NOBODY = People.empty(COCO_17)
A, B = (-800.0, 100.0, 4000.0), (900.0, 100.0, 6000.0)


def at(*places_mm, camera=CAMERA):
    """Return people who stand at places [3] in the world."""
    places = np.array(places_mm, float).reshape(-1, 1, 3)
    return people_from(camera.from_world(places + standing_body()), camera)


class Clock:
    """A tracker that is shown a frame after the other."""

    def __init__(self, rate_hz=30.0, **options):
        self.tracker = Tracker(**options)
        self.step_s = 1 / rate_hz
        self.now_s = 100.0

    def __call__(self, *people, step_s=None, camera=CAMERA):
        self.now_s += self.step_s if step_s is None else step_s
        for shown in people:
            last = self.tracker.update(shown, self.now_s, camera, IMAGE_SHAPE)
        return last

    def ids(self, people, **options):
        return self(people, **options).ids.tolist()


def test_ids_stay_with_people_in_whatever_order():
    see = Clock()
    assert [see.ids(at(A, B)), see.ids(at(B, A)), see.ids(at(A, B))] == [[1, 2]] * 3
    assert see.tracker.detection_ids.tolist() == [1, 2]
    see(at(B, A))
    assert see.tracker.detection_ids.tolist() == [2, 1]


def test_in_the_first_frames_all_count_later_only_who_was_seen_often_enough():
    see = Clock(min_hits=3)
    assert see.ids(at(A)) == [1]
    for _ in range(5):
        see(at(A))
    assert [see.ids(at(A, B)) for _ in range(4)] == [[1], [1], [1, 2], [1, 2]]


def test_where_frames_come_slowly_who_is_seen_counts_at_once_but_is_not_carried_over():
    see = Clock(rate_hz=2)
    for _ in range(5):
        see(at(A))
    assert see.ids(at(A, B)) == [1, 2]
    assert see.ids(at(A)) == [1]


def test_a_false_alarm_never_counts_and_nobody_else_gets_its_id():
    see = Clock()
    for _ in range(5):
        see(at(A))
    assert see.ids(at(A, B)) == [1]
    for _ in range(5):
        assert see.ids(at(A)) == [1]
    for _ in range(3):
        last = see.ids(at(A, B))
    assert last == [1, 3]


def test_who_is_hidden_is_carried_over_for_max_lost():
    see = Clock(max_lost=0.5)
    for i in range(30):
        see(at((A[0] + 40 * i, *A[1:])))
    for i in range(30, 44):
        people = see(NOBODY)
        assert people.ids.tolist() == [1]
        assert people.seen.tolist() == [False]
        np.testing.assert_allclose(people.positions_mm[0, 0], A[0] + 40 * i, atol=60)
    assert (people.joint_std_mm > 150).all()
    assert see.ids(at((A[0] + 40 * 44, *A[1:]))) == [1]
    for _ in range(16):
        last = see.ids(NOBODY)
    assert last == []
    for _ in range(3):
        last = see.ids(at(A))
    assert last == [2]


def test_who_left_the_picture_is_not_shown_but_remembered():
    see = Clock()
    for i in range(30):
        see(at((1800.0 + 40 * i, 100.0, 4000.0)))
    for _ in range(8):
        left = see(NOBODY)
    assert not len(left)
    back = [see.ids(at((2900.0, 100.0, 4000.0))) for _ in range(4)]
    assert back[-1] == [1]


def test_what_was_told_of_a_frame_never_changes():
    rng, see, told = np.random.default_rng(0), Clock(rate_hz=2), []
    for i in range(40):
        # From side to side farther than anybody can go: lost, and soon found again.
        where = A if i % 20 < 10 else (A[0] + 1800, *A[1:])
        people = see(people_from(noisy(at(where, B).poses3d_mm, rng), CAMERA))
        told.append((people, {k: np.copy(v) for k, v in vars(people).items() if k != 'skeleton'}))
    assert [people.ids.tolist() for people, _ in told[-5:]] == [[1, 2]] * 5
    for people, before in told:
        for name, values in before.items():
            np.testing.assert_array_equal(getattr(people, name), values)


def test_ages_and_velocities_are_told():
    see = Clock()
    for i in range(31):
        people = see(at((A[0] + 40 * i, *A[1:])))
    assert people.ages_s[0] == pytest.approx(1.0)
    np.testing.assert_allclose(people.velocities_mm_s[0], [[1200, 0, 0]] * 17, atol=40)
    later = people.after(0.1)
    np.testing.assert_allclose(later.poses3d_mm - people.poses3d_mm, [[[120, 0, 0]] * 17], atol=4)
    np.testing.assert_array_equal(later.poses2d_px, people.poses2d_px)


def test_without_smoothing_poses_stay_as_they_came():
    rng, see = np.random.default_rng(0), Clock(smoothing=0.0)
    for _ in range(20):
        found = people_from(noisy(at(A, B).poses3d_mm, rng), CAMERA)
        people = see(found)
        np.testing.assert_array_equal(people.poses3d_mm, found.poses3d_mm)
        np.testing.assert_array_equal(people.poses2d_px, found.poses2d_px)
        np.testing.assert_array_equal(people.boxes_px, found.boxes_px)


def test_more_smoothing_is_calmer():
    calm = []
    for smoothing in (0.1, 0.5, 1.0):
        rng, see = np.random.default_rng(0), Clock(smoothing=smoothing)
        poses = [
            see(people_from(noisy(at(A).poses3d_mm, rng), CAMERA)).poses3d_mm for _ in range(300)
        ]
        calm.append(np.array(poses)[100:].std(axis=0).mean())
    assert calm[0] > calm[1] > calm[2]


def test_image_points_belong_to_the_poses():
    rng, see = np.random.default_rng(0), Clock()
    for _ in range(10):
        people = see(people_from(noisy(at(A).poses3d_mm, rng), CAMERA))
    np.testing.assert_allclose(people.poses2d_px, CAMERA.project(people.poses3d_mm))


def turned(degrees):
    yaw = np.radians(degrees)
    extrinsics = np.eye(4)
    extrinsics[0, [0, 2]] = np.cos(yaw), -np.sin(yaw)
    extrinsics[2, [0, 2]] = np.sin(yaw), np.cos(yaw)
    return Camera(INTRINSICS, extrinsic_matrix=extrinsics)


def test_a_robot_that_turns_does_not_move_people():
    see = Clock(rate_hz=10)
    for i in range(10):
        camera = turned(6 * i - 30)
        people = see(at(A, B, camera=camera), camera=camera)
        assert people.ids.tolist() == [1, 2]
    assert np.abs(people.velocities_mm_s).max() < 50
    np.testing.assert_allclose(
        camera.to_world(people.poses3d_mm)[:, 0], np.array([A, B]) + standing_body()[0], atol=20
    )


def test_velocities_are_along_the_cameras_axes():
    camera = turned(90)
    see = Clock()
    for i in range(30):
        people = see(at((5000.0, 100.0, 30.0 * i), camera=camera), camera=camera)
    np.testing.assert_allclose(people.velocities_mm_s[0, 0], [-900, 0, 0], atol=30)


def test_stamps_that_go_back_begin_anew_and_no_id_comes_again():
    see = Clock()
    assert see.ids(at(A)) == [1]
    assert see.ids(at(A), step_s=-50.0) == [2]
    assert see.ids(at(A)) == [2]


def test_stamps_that_go_back_a_little_are_the_same_moment():
    see = Clock()
    for _ in range(5):
        see(at(A))
    assert see.ids(at(A), step_s=-0.02) == [1]


def test_two_images_with_one_stamp_are_one_moment():
    see = Clock()
    for _ in range(5):
        people = see(at(A), at(A))
    assert people.ids.tolist() == [1]
    assert np.isfinite(people.velocities_mm_s).all()
    np.testing.assert_allclose(people.velocities_mm_s, 0, atol=10)


def test_rates_that_change_do_not_disturb():
    see, where_mm = Clock(), A[0]
    for step_s in [0.033] * 20 + [0.2] * 10 + [0.01] * 30 + [0.4] * 3:
        where_mm += 1000 * step_s
        people = see(at((where_mm - 2000, *A[1:])), step_s=step_s)
        assert people.ids.tolist() == [1]
    np.testing.assert_allclose(people.velocities_mm_s[0, :, 0], 1000, atol=150)


def test_after_a_long_gap_everybody_is_somebody_new():
    see = Clock()
    for _ in range(10):
        see(at(A))
    assert see.ids(at(A), step_s=5.0) == [2]


def test_frames_that_come_slowly_are_no_gap():
    see = Clock(rate_hz=0.5)
    for _ in range(5):
        assert see.ids(at(A)) == [1]


def test_people_one_behind_the_other_are_kept_apart():
    see = Clock(rate_hz=10)
    rng = np.random.default_rng(0)
    for i in range(60):
        # The nearer one walks past the farther one, along the line of sight.
        near, far = (100.0, 100.0, 3000.0 + 80 * i), (-200.0, 100.0, 6000.0)
        poses_mm = np.concatenate([at(near).poses3d_mm, at(far).poses3d_mm])
        people = see(people_from(noisy(poses_mm, rng), CAMERA))
    assert people.ids.tolist() == [1, 2]
    assert people.positions_mm[0, 2] > people.positions_mm[1, 2]


def test_the_same_person_found_twice_is_one():
    see = Clock()
    for _ in range(10):
        people = see(at(A, (A[0] + 50, *A[1:])))
    assert people.ids.tolist() == [1]


def test_who_is_nowhere_is_ignored():
    see = Clock()
    broken = at(A, B)
    poses_mm = broken.poses3d_mm.copy()
    poses_mm[0, 3] = np.nan
    for _ in range(4):
        people = see(dataclasses.replace(broken, poses3d_mm=poses_mm))
    assert len(people) == 1
    assert see.tracker.detection_ids.tolist() == [UNKNOWN_ID, people.ids[0]]
    assert people.finite().all()


def test_a_stamp_that_is_none_is_refused():
    with pytest.raises(ValueError, match='stamp_s is nan'):
        Tracker().update(NOBODY, np.nan, CAMERA, IMAGE_SHAPE)


def test_another_skeleton_begins_anew():
    see = Clock()
    assert see.ids(at(A)) == [1]
    many = np.repeat(at(A).poses3d_mm, 2, axis=1)[:, :33]
    assert see.ids(people_from(many, CAMERA, BLAZEPOSE_33)) == [2]


def test_people_are_expected_where_they_go():
    tracker = Tracker()
    assert tracker.predict(0.0, CAMERA, IMAGE_SHAPE) is None
    for i in range(30):
        tracker.update(at((A[0] + 40 * i, *A[1:])), i / 30, CAMERA, IMAGE_SHAPE)
    tracker.update(NOBODY, 1.0, CAMERA, IMAGE_SHAPE)
    expected = tracker.predict(31 / 30, CAMERA, IMAGE_SHAPE)
    truth = at((A[0] + 40 * 31, *A[1:]))
    assert expected.ids.tolist() == [1]
    assert expected.seen.tolist() == [False]
    np.testing.assert_allclose(expected.poses2d_px, truth.poses2d_px, atol=10)
    np.testing.assert_allclose(expected.boxes_px, truth.boxes_px, atol=10)


def test_predictions_can_be_followed(model, street):
    tracker, skeleton = metrabs_ros.Tracker(), model.convention('coco_17').skeleton
    camera = metrabs_ros.Camera(np.array([[900.0, 0, 384], [0, 900, 288], [0, 0, 1]]))
    for stamp_s in (0.0, 0.1, 0.2):
        prediction = model.detect_poses(
            street, intrinsic_matrix=camera.intrinsic_matrix, skeleton='coco_17'
        )
        found = metrabs_ros.People.of_prediction(prediction, skeleton, street.shape)
        people = tracker.update(found, stamp_s, camera, street.shape)
    assert len(people) == len(prediction['boxes']) >= 5
    np.testing.assert_allclose(people.poses3d_mm, prediction['poses3d'], atol=2)


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    'name',
    ['confidence', 'boxes_px', 'poses3d_mm', 'poses2d_px', 'joint_confidence', 'joint_std_mm'],
)
def test_detections_with_values_that_are_not_finite_are_ignored(name, value):
    see = Clock()
    for i in range(6):
        found = at(A, B)
        values = getattr(found, name).copy()
        values[i % 2] = value
        people = see(dataclasses.replace(found, **{name: values}))
        assert see.tracker.detection_ids[i % 2] == UNKNOWN_ID
        for array in (people.confidence, people.joint_std_mm, people.velocities_mm_s):
            assert np.isfinite(array).all()
        assert people.finite().all()


def test_where_stamps_stand_still_who_left_is_forgotten():
    see = Clock(max_lost=0.5)
    for _ in range(30):
        see(at(A))
    last = [len(see(NOBODY, step_s=0.0)) for _ in range(130)]
    assert last[-1] == 0
    assert not len(see.tracker.predict(see.now_s, CAMERA, IMAGE_SHAPE))


def test_stamps_that_step_back_and_forth_keep_ids():
    see = Clock()
    for i in range(60):
        people = see(at(A), step_s=(0.1, -0.05)[i % 2])
        assert people.ids.tolist() == [1]
        assert np.abs(people.velocities_mm_s).max() < 50
        assert people.ages_s[0] >= 0


def test_stamps_that_jump_by_hours_begin_anew():
    see = Clock()
    assert [see.ids(at(A), step_s=step_s) for step_s in (0, 3600.0, 1e9, 1e300)] == [
        [1],
        [2],
        [3],
        [4],
    ]
    assert see.ids(at(A), step_s=-2e300) == [5]


def test_from_the_least_stamp_to_the_greatest():
    tracker, largest = Tracker(), sys.float_info.max
    for stamp_s in (-largest, -largest, largest):
        people = tracker.update(at(A), stamp_s, CAMERA, IMAGE_SHAPE)
        assert people.ages_s.tolist() == [0]


def test_velocities_survive_images_with_equal_stamps():
    rng, see = np.random.default_rng(0), Clock()
    for i in range(60):
        where = (A[0] + 40 * i - 600, *A[1:])
        several = [people_from(noisy(at(where).poses3d_mm, rng), CAMERA) for _ in range(5)]
        people = see(*several)
    np.testing.assert_allclose(people.velocities_mm_s[0, :, 0], 1200, atol=500)
    assert np.abs(people.velocities_mm_s).max() < 2000


def test_five_hundred_detections_take_less_than_a_second():
    rng, see = np.random.default_rng(0), Clock()
    for _ in range(4):
        places = rng.uniform((-9000, 100, 6000), (9000, 100, 40000), (500, 3))
        found = at(*places)
        start_s = time.process_time()
        see(found)
        assert time.process_time() - start_s < 1


def test_memory_does_not_grow():
    rng, see, sizes = np.random.default_rng(0), Clock(), []
    for i in range(2000):
        places = [A, *rng.uniform((-3000, 100, 4000), (3000, 100, 12000), (3, 3))]
        see(at(*places[: 1 + (i % 40 < 20) * 3]))
        if i % 500 == 499:
            sizes.append(len(pickle.dumps(see.tracker)))
    assert max(sizes) < 2 * min(sizes)


def test_ids_fit_into_32_bits_and_are_unique():
    see = Clock()
    assert see.ids(at(A)) == [1]
    see.tracker._next_id = MAX_ID
    for _ in range(3):
        last = see.ids(at(A, B, (0.0, 100.0, 9000.0)))
    assert last == [1, MAX_ID, 2]


@pytest.mark.parametrize(
    'options',
    [
        {'max_lost': np.nan},
        {'max_lost': -1.0},
        {'min_hits': 0},
        {'smoothing': np.nan},
        {'smoothing': 1.5},
        {'smoothing': -0.1},
    ],
)
def test_options_out_of_range_are_refused(options):
    (name,) = options
    with pytest.raises(ValueError, match=f'{name} is '):
        Tracker(**options)


offsets = st.floats(-1e5, 1e5) | st.floats(-1e13, 1e13)


@pytest.mark.filterwarnings('error')
@settings(max_examples=60)
@given(st.lists(st.tuples(offsets, offsets, st.floats(-180, 180)), max_size=12))
def test_wherever_the_camera_is_all_is_finite(cameras):
    tracker = Tracker()
    for i, (x_mm, z_mm, yaw_degrees) in enumerate(cameras):
        extrinsics = turned(yaw_degrees).extrinsic_matrix.copy()
        extrinsics[[0, 2], 3] = x_mm, z_mm
        camera = Camera(INTRINSICS, extrinsic_matrix=extrinsics)
        expected = tracker.predict(i / 10, camera, IMAGE_SHAPE)
        assert expected is None or expected.finite().all()
        people = tracker.update(at(A, B), i / 10, camera, IMAGE_SHAPE)
        assert people.finite().all()
        assert np.isfinite(people.velocities_mm_s).all()


places = st.tuples(st.floats(-3e3, 3e3), st.floats(-1e3, 1e3), st.floats(-100, 2e4))
stamps = st.floats(-1e9, 1e9) | st.floats(0, 3)


@settings(max_examples=60)
@given(st.lists(st.tuples(stamps, st.lists(places, max_size=4)), max_size=12))
def test_whatever_comes_ids_are_distinct_and_all_is_finite(frames):
    tracker, before = Tracker(), set()
    for stamp_s, where in frames:
        people = tracker.update(at(*where), stamp_s, CAMERA, IMAGE_SHAPE)
        ids = people.ids.tolist()
        assert len(set(ids)) == len(ids)
        assert people.finite().all()
        assert np.isfinite(people.velocities_mm_s).all()
        assert (people.ages_s >= 0).all()
        before |= set(ids)
    assert all(person >= 1 for person in before)
