"""People found anew in each frame keep their ids while they stay near."""

from __future__ import annotations

import numpy as np
import pytest
from test_people import people_at

from metrabs_ros.camera import Camera
from metrabs_ros.engines.choice import Choice
from metrabs_ros.estimator import Options, PoseEstimator, Poses
from metrabs_ros.skeleton import BLAZEPOSE_33
from metrabs_ros.tracking.each_frame import EachFrame
from metrabs_ros.tracking.follow import PeopleFollower
from metrabs_ros.tracking.stream import people_in_stream

IMAGE = np.zeros((480, 640, 3), np.uint8)
CAMERA = Camera.from_fov(60, IMAGE.shape)


class Walkers(PoseEstimator):
    """People who are where they are said to be, frame by frame."""

    def __init__(self, *frames):
        choice = Choice('none', 'fp32', 'nowhere', 'nothing is calculated')
        super().__init__({'': BLAZEPOSE_33.within(BLAZEPOSE_33)}, choice)
        self.frames = iter(frames)

    def check(self, options):
        pass

    def find_people(self, image, camera, options):
        people = people_at(*next(self.frames))
        return Poses(
            people.boxes_px,
            people.confidence,
            np.repeat(people.poses3d_mm[:, None], options.num_aug, axis=1),
            np.repeat(people.poses2d_px[:, None], options.num_aug, axis=1),
        )

    def pose_people(self, image, camera, boxes_px, options):
        raise NotImplementedError


def ids_of(*frames):
    find = EachFrame(Walkers(*frames), Options(num_aug=2))
    return [find(IMAGE, CAMERA).ids.tolist() for _ in frames]


def test_ids_stay_with_the_nearest_in_whatever_order():
    a, b = (0.0, 0.0, 3000.0), (1500.0, 0.0, 4000.0)
    near_b = (1300.0, 0.0, 4100.0)
    assert ids_of([a, b], [b, a], [near_b], [a, near_b]) == [[1, 2], [2, 1], [2], [3, 2]]


def test_who_comes_from_afar_is_somebody_else():
    assert ids_of([(0, 0, 3000)], [(2500, 0, 3000)], []) == [[1], [2], []]


def test_two_never_have_the_same_id():
    assert ids_of([(0, 0, 3000)], [(100, 0, 3000), (-100, 0, 3000)])[1] in ([1, 2], [2, 1])


def test_people_have_arrays_of_the_network(metrabs_model, street):
    find = EachFrame(metrabs_model, Options(suppress_implausible_poses=False))
    camera = Camera(np.array([[900.0, 0, 384], [0, 900, 288], [0, 0, 1]]))
    people = find(street, camera)
    assert len(people) >= 4
    assert people.poses3d_mm.shape == (len(people), 40, 3)
    assert people.joint_confidence.shape == people.in_view.shape == (len(people), 40)
    np.testing.assert_allclose(camera.project(people.poses3d_mm), people.poses2d_px)
    again = find(street, camera)
    assert again.ids.tolist() == people.ids.tolist()
    hands = people.in_convention(metrabs_model.convention('kinect_4'))
    assert hands.poses3d_mm.shape == (len(people), 4, 3)


def test_each_model_has_its_way_through_a_stream(model, metrabs_model):
    assert isinstance(people_in_stream(model, Options()), PeopleFollower)
    assert isinstance(people_in_stream(metrabs_model, Options(num_aug=3)), EachFrame)
    with pytest.raises(ValueError, match='num_aug is 3'):
        people_in_stream(model, Options(num_aug=3))
