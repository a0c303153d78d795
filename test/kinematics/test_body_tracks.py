"""Test the memory of bodies: ids, missing joints, lengths, and the time they are kept."""

import dataclasses

import numpy as np
import pytest
from bodies import ADULT_MM, UP, people_of, random_angles, random_bodies, standing, to_world

from metrabs_ros.kinematics.body_frames import BodyFrames
from metrabs_ros.kinematics.body_tracks import MAX_ABSENCES, BodyTracks, residuals_mm
from metrabs_ros.kinematics.human_model import human_model
from metrabs_ros.kinematics.postures import Posture
from metrabs_ros.people import People
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, COCO_17

HERE, THERE = (0, 0, 900), (2000, 500, 900)


@pytest.fixture
def tracks():
    return BodyTracks(human_model())


def follow(tracks, people, stamps_s):
    for stamp_s in stamps_s:
        bodies = tracks.solve(tracks.update(people, UP, stamp_s))
    return bodies


def fitted_mm(bodies):
    in_body_mm = human_model().landmarks_mm(bodies.angles, bodies.lengths_mm)
    frames = BodyFrames.of_bodies(bodies.origins_mm, bodies.rotations, bodies.angles[:, 0])
    return to_world(frames, in_body_mm)


def test_bodies_reproduce_the_landmarks_of_people(tracks):
    people = people_of(standing(HERE, THERE, l_r_hip=30, r_r_hip=20, l_elbow=70, l_knee=-40))
    bodies = follow(tracks, people, [1.0])
    np.testing.assert_allclose(fitted_mm(bodies), people.poses3d_mm, atol=1)
    np.testing.assert_allclose(bodies.lengths_mm, [ADULT_MM] * 2, atol=0.01)


def test_angles_belong_to_ids_and_not_to_rows(tracks):
    landmarks_mm = np.concatenate([standing(HERE, l_elbow=90), standing(THERE, l_elbow=20)])
    first = follow(tracks, people_of(landmarks_mm, [7, 3]), [1.0])
    second = tracks.update(people_of(landmarks_mm[::-1], [3, 7]), UP, 1.03)
    np.testing.assert_allclose(second.angles, first.angles[::-1])


def test_angles_are_computed_only_if_they_are_needed(tracks):
    people = people_of(standing(HERE, l_elbow=90))
    bodies = tracks.update(people, UP, 1.0)
    np.testing.assert_array_equal(bodies.angles, np.zeros((1, 20)))
    assert tracks.solve(bodies).angles[0, 7] == pytest.approx(np.pi / 2)


def test_missing_joints_keep_their_angles(tracks):
    people = people_of(standing(HERE, l_elbow=90))
    follow(tracks, people, [1.0])
    people.joint_confidence[0, 9] = 0.05
    people.poses3d_mm[0, 9] += 400
    bodies = follow(tracks, people, [1.03, 1.06, 1.09])
    assert bodies.angles[0, 7] == pytest.approx(np.pi / 2)
    assert not bodies.known[0, 9]


def test_bodies_are_forgotten_after_a_second(tracks):
    people = people_of(standing(HERE))
    follow(tracks, people, np.arange(0, 1.5, 0.1))
    no_people = people.select(np.zeros(0, np.intp))
    assert len(tracks.update(no_people, UP, 2.0)) == 0
    assert tracks.update(people, UP, 2.1).versions == 1
    tracks.update(no_people, UP, 4.0)
    assert tracks.update(people, UP, 4.1).versions == 0


def test_a_jump_back_in_time_deletes_bodies(tracks):
    people = people_of(standing(HERE))
    assert follow(tracks, people, np.arange(100, 101.5, 0.1)).versions == 1
    assert follow(tracks, people, [5.0]).versions == 0


def test_people_are_kept_between_images_that_are_far_apart(tracks):
    people = people_of(standing(HERE))
    assert follow(tracks, people, np.arange(0, 10, 1.7)).versions == 1


def test_people_who_left_are_deleted_if_all_stamps_are_equal(tracks):
    landmarks_mm = standing(HERE)
    for person in range(MAX_ABSENCES + 20):
        tracks.update(people_of(landmarks_mm, [person]), UP, 0.0)
    assert tracks.ids.tolist() == list(range(19, MAX_ABSENCES + 20))


def test_a_small_step_back_in_time_leaves_angles_within_their_limits(tracks):
    people = people_of(standing(HERE, l_elbow=60))
    follow(tracks, people, np.arange(1, 3, 0.1))
    bodies = follow(tracks, people, [2.4])
    assert bodies.versions == 1
    np.testing.assert_allclose(fitted_mm(bodies), people.poses3d_mm, atol=1)
    tree = human_model().tree
    assert np.all((bodies.angles > tree.lower - 1e-9) & (bodies.angles < tree.upper + 1e-9))


def test_lengths_of_extrapolated_people_are_not_measured(tracks):
    people = people_of(standing(HERE))
    follow(tracks, people, [1.0])
    longer = dataclasses.replace(people, poses3d_mm=2 * people.poses3d_mm, seen=np.zeros(1, bool))
    bodies = follow(tracks, longer, np.arange(1.1, 3, 0.1))
    np.testing.assert_allclose(bodies.lengths_mm[0], ADULT_MM, atol=0.01)


def test_postures_are_kept_per_person(tracks):
    landmarks_mm = np.concatenate([standing(HERE), standing(THERE, l_r_hip=90, r_r_hip=90)])
    bodies = tracks.update(people_of(landmarks_mm), UP, 1.0)
    assert tracks.postures(bodies, UP).tolist() == [Posture.STANDING, Posture.SITTING]


def test_skeletons_without_legs_have_frames_and_no_unknown_angles(tracks):
    upper = dataclasses.replace(
        COCO_17, name='upper', joint_names=COCO_17.joint_names[:13], edges=()
    )
    people = people_of(standing(HERE, l_elbow=90))
    people = people.in_convention(upper.within(COCO_17))
    bodies = follow(tracks, people, [1.0])
    assert bodies.angles[0, 7] == pytest.approx(np.pi / 2)
    np.testing.assert_array_equal(bodies.angles[0, 12:], 0)
    assert np.isfinite(bodies.landmarks_mm).all()


def test_blazepose_people_have_the_landmarks_of_their_joints(tracks):
    people = people_of(standing(HERE))
    poses_mm = np.full((1, 33, 3), 9e3)
    indices = [BLAZEPOSE_33.joint_names.index(name) for name in COCO_17.joint_names]
    poses_mm[:, indices] = people.poses3d_mm
    whole = People.from_detections(
        BLAZEPOSE_33, people.boxes_px, people.confidence, poses_mm, np.zeros((1, 33, 2)), (9, 9)
    )
    bodies = tracks.update(dataclasses.replace(whole, ids=people.ids), UP, 1.0)
    np.testing.assert_allclose(bodies.landmarks_mm, people.poses3d_mm)
    assert bodies.known.all()


def test_thousands_of_people_leave_nothing_behind(tracks):
    bodies = random_bodies(random_angles(10))
    for i in range(300):
        people = people_of(bodies.landmarks_mm, list(range(10 * i + 1, 10 * i + 11)))
        follow(tracks, people, [0.5 * i])
    assert all(
        len(values) <= 30 for values in vars(tracks).values() if isinstance(values, np.ndarray)
    )


def test_residuals_are_the_distances_of_known_landmarks_from_the_model(tracks):
    people = people_of(standing(HERE, l_elbow=60))
    follow(tracks, people, np.arange(1, 3, 0.1))
    people.poses3d_mm[0, 10] = people.poses3d_mm[0, 8] + (0, 0, -ADULT_MM[4] - 40)
    people.joint_confidence[0, 3] = 0
    (errors_mm,) = residuals_mm(follow(tracks, people, [3.0]), human_model())
    assert errors_mm[10] == pytest.approx(40, abs=3)
    assert np.isnan(errors_mm[3])
    assert errors_mm[[9, 15, 16]].max() < 1
