"""A detector looks now and then, and when somebody is lost; in between, own boxes will do."""

from __future__ import annotations

import numpy as np
import pytest
from test_people import people_at

from metrabs_ros.backends.selection import Choice
from metrabs_ros.camera import Camera
from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.options import Options, View
from metrabs_ros.pose_estimator import PoseEstimator, Poses
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33
from metrabs_ros.tracking.box_following import BoxFinder
from metrabs_ros.tracking.person_tracker import (
    PeopleStream,
    finder_for,
    outcomes_in_streams,
    people_in_streams,
)
from metrabs_ros.tracking.region_following import PeopleFollower
from metrabs_ros.tracking.timed_view import TimedView
from metrabs_ros.tracking.tracker import Tracker

IMAGE = np.zeros((480, 640, 3), np.uint8)
CAMERA = Camera(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]))
A, B = (0.0, 0.0, 4000.0), (1500.0, 0.0, 5000.0)


class Crowd(PoseEstimator):
    """People at places, whom a detector sees, and of whom each box shows the nearest."""

    def __init__(self, *places):
        choice = Choice('none', 'fp32', 'nowhere', 'nothing is calculated')
        super().__init__({'': BLAZEPOSE_33.within(BLAZEPOSE_33)}, choice)
        self.places = list(places)
        self.log = []

    def check(self, options):
        pass

    def find_people(self, image, camera, options):
        self.log.append('detect')
        return self._poses(people_at(*self.places), options)

    def pose_people(self, image, camera, boxes_px, options):
        self.log.append(len(boxes_px))
        people = people_at(*self.places)
        centres = people.boxes_px[:, :2] + people.boxes_px[:, 2:] / 2
        nearest = [
            np.linalg.norm(centres - (box[:2] + box[2:] / 2), axis=-1).argmin() for box in boxes_px
        ]
        return self._poses(people.select(np.array(nearest, int)), options, boxes_px)

    def _poses(self, people, options, boxes_px=None):
        return Poses(
            people.boxes_px if boxes_px is None else boxes_px,
            people.confidence,
            np.repeat(people.poses3d_mm[:, None], options.num_aug, axis=1),
            np.repeat(people.poses2d_px[:, None], options.num_aug, axis=1),
        )


def frames(crowd, rate_hz, count, detect_interval=0, options=None):
    stream = PeopleStream(
        BoxFinder(crowd, options or Options(num_aug=2), detect_interval), Tracker()
    )
    for i in range(count):
        yield i, stream(IMAGE, CAMERA, i / rate_hz)


def test_between_the_detectors_turns_people_are_found_in_their_own_boxes():
    crowd = Crowd(A, B)
    for i, people in frames(crowd, 30, 11):
        assert people.ids.tolist() == [1, 2]
        crowd.places = [(10.0 * i, 0, 4000), (1500.0 - 20 * i, 0, 5000)]
    assert crowd.log == ['detect', *[2] * 4, 'detect', *[2] * 4, 'detect']


def test_interval_1_detects_in_each_frame():
    crowd = Crowd(A)
    assert len(list(frames(crowd, 30, 5, detect_interval=1))) == 5
    assert crowd.log == ['detect'] * 5


@pytest.mark.parametrize('rate_hz', [2, 5, 10, 30])
def test_nobody_in_view_stays_undiscovered_for_half_a_second(rate_hz):
    crowd = Crowd(A)
    entered_s = None
    for i, people in frames(crowd, rate_hz, 20 * rate_hz, detect_interval=1000):
        if entered_s is None and i / rate_hz > 3.01:
            crowd.places = [A, B]
            entered_s = (i + 1) / rate_hz
        if len(people) == 2:
            break
    assert i / rate_hz - entered_s <= 0.5 + 1e-9


def test_the_detector_looks_at_once_when_somebody_is_lost():
    crowd = Crowd(A, B)
    for i, _ in frames(crowd, 30, 9, detect_interval=100):
        # The box of who went shows a pose that fills no box.
        crowd.places = [A] if i >= 3 else crowd.places
    assert crowd.log[:4] == ['detect', 2, 2, 2]
    assert crowd.log[4] == 2
    assert crowd.log[5] == 'detect'
    assert crowd.log.count('detect') == 4


def test_boxes_that_are_given_are_looked_at():
    crowd = Crowd(A, B)
    stream = PeopleStream(BoxFinder(crowd, Options()), Tracker())
    boxes = Boxes(people_at(B).boxes_px, np.array([0.6]))
    (people,) = people_in_streams([stream], [TimedView(View(IMAGE, CAMERA), 1.0, boxes)])
    assert crowd.log == [1]
    assert people.confidence.tolist() == [0.6]
    np.testing.assert_allclose(people.positions_mm, [B], atol=1)


class Haunted(Crowd):
    """A person, and a place where the detector sees another one in a share of its runs."""

    def __init__(self, real, ghost, share, seed=0):
        super().__init__(real)
        self.real, self.ghost, self.share = real, ghost, share
        self.rng = np.random.default_rng(seed)
        self.runs, self.detected = 0, 0

    def find_people(self, image, camera, options):
        there = self.rng.random() < self.share
        self.runs += 1
        self.detected += there
        self.places = [self.real, self.ghost] if there else [self.real]
        return super().find_people(image, camera, options)

    def pose_people(self, image, camera, boxes_px, options):
        # Poses in the boxes of false detections are plausible.
        self.places = [self.real, self.ghost]
        return super().pose_people(image, camera, boxes_px, options)


@pytest.mark.parametrize('share', [1 / 2, 1 / 3, 1 / 5])
@pytest.mark.parametrize('detect_interval', [0, 1])
@pytest.mark.parametrize('rate_hz', [5, 10, 30])
def test_false_people_are_not_published_more_often_than_the_detector_sees_them(
    rate_hz, detect_interval, share
):
    crowd, published, count = Haunted(A, B, share), 0, 250
    for _, people in frames(crowd, rate_hz, count, detect_interval, Options()):
        published += int((people.positions_mm[:, 0] > 700).sum())
        assert (people.positions_mm[:, 0] < 700).sum() == 1
    assert published / count <= crowd.detected / crowd.runs


@pytest.mark.parametrize('detect_interval', [0, 1, 10])
@pytest.mark.parametrize('rate_hz', [5, 10, 30])
def test_who_hides_is_carried_over_whatever_the_interval(rate_hz, detect_interval):
    crowd, hidden_s = Crowd(A, B), 3.0
    for i, people in frames(crowd, rate_hz, 4 * rate_hz, detect_interval):
        if (i + 1) / rate_hz >= hidden_s:
            crowd.places = [A]
        if i / rate_hz < hidden_s + 0.8:
            assert people.ids.tolist() == [1, 2]


def test_boxes_that_the_lens_does_not_see_do_not_fail_the_others(metrabs_model, street):
    options = Options(suppress_implausible_poses=False)
    finder = BoxFinder(metrabs_model, options, detect_interval=10)
    stream = PeopleStream(finder, Tracker())
    matrix = np.array([[100.0, 0, 384], [0, 100, 288], [0, 0, 1]])
    view = View(street, Camera(matrix, np.zeros(4), fisheye=True))
    boxes = Boxes(np.array([[0.0, 0, 30, 30], [300, 200, 100, 200]]), np.array([0.9, 0.8]))
    (people,) = people_in_streams([stream], [TimedView(view, 1.0, boxes)])
    assert people.confidence.tolist() == [0.8]
    # A known person's box, at the rim of the image, from where the lens sees nothing.
    expected = people.select(np.zeros(2, int))
    expected.boxes_px[0] = 0, 0, 30, 30
    assert finder.boxes(TimedView(view, 1.05), expected) is None
    assert finder.boxes(TimedView(view, 1.1), expected).boxes_px.tolist() == [
        people.boxes_px[0].tolist()
    ]


def test_no_more_of_the_given_boxes_are_looked_at_than_allowed():
    crowd = Crowd(A, B)
    stream = PeopleStream(BoxFinder(crowd, Options(max_detections=3)), Tracker())
    boxes = Boxes(people_at(*[A, B] * 5).boxes_px, np.linspace(0.1, 1, 10))
    people_in_streams([stream], [TimedView(View(IMAGE, CAMERA), 1.0, boxes)])
    assert crowd.log == [3]


def test_several_streams_share_a_run_of_the_network():
    crowd = Crowd(A)
    streams = [PeopleStream(BoxFinder(crowd, Options()), Tracker()) for _ in range(2)]
    for stamp_s in (0.0, 0.03):
        timed_views = [TimedView(View(IMAGE, CAMERA), stamp_s)] * 2
        assert [people.ids.tolist() for people in people_in_streams(streams, timed_views)] == [
            [1]
        ] * 2


class Fragile(Crowd):
    """Fails with images whose first pixel is not black, as a network does for its whole batch."""

    def check_all(self, views):
        if any(view.image[0, 0].any() for view in views):
            raise RuntimeError('the network fails')

    def find_people_in(self, views, options):
        self.check_all(views)
        return super().find_people_in(views, options)

    def pose_people_in(self, views, boxes_px, options):
        self.check_all(views)
        return super().pose_people_in(views, boxes_px, options)


@pytest.mark.parametrize('boxes', [None, Boxes(people_at(A).boxes_px, np.ones(1))])
def test_an_image_that_fails_leaves_the_other_streams_as_they_would_be_without_it(boxes):
    bad = IMAGE + np.uint8(255)

    def results(first_fails):
        """Return the people of 12 frames and whether the others' frames failed."""
        crowd = Fragile(A, B)
        streams = [PeopleStream(BoxFinder(crowd, Options()), Tracker()) for _ in range(3)]
        people, failed = [], []
        for i in range(12):
            images = [IMAGE, bad if first_fails and i in (0, 3, 5, 6) else IMAGE, IMAGE]
            timed_views = [TimedView(View(image, CAMERA), i / 10, boxes) for image in images]
            outcomes = outcomes_in_streams(streams, timed_views)
            people += [outcomes[0].people, outcomes[2].people]
            failed.append(isinstance(outcomes[1].people, Exception))
            assert all((outcome.batch_error is not None) == failed[-1] for outcome in outcomes)
        return people, failed

    undisturbed, failed = results(first_fails=False)
    assert not any(failed)
    disturbed, failed = results(first_fails=True)
    assert [i for i, has_failed in enumerate(failed) if has_failed] == [0, 3, 5, 6]
    for expected, found in zip(undisturbed, disturbed):
        assert found.ids.tolist() == expected.ids.tolist()
        np.testing.assert_array_equal(found.poses3d_mm, expected.poses3d_mm)
        np.testing.assert_array_equal(found.ages_s, expected.ages_s)


def test_the_detector_is_due_as_often_although_the_network_runs_twice():
    streams = [PeopleStream(BoxFinder(Fragile(A), Options()), Tracker()) for _ in range(2)]
    for i in range(12):
        timed_views = [
            TimedView(View(image, CAMERA), i / 30) for image in (IMAGE, IMAGE + np.uint8(i == 5))
        ]
        outcomes_in_streams(streams, timed_views)
    # In frames 0, 5 and 10.
    assert streams[0].finder._frames == streams[1].finder._frames == 1


def test_tracks_that_are_half_updated_are_deleted(monkeypatch):
    streams = [PeopleStream(BoxFinder(Crowd(A), Options()), Tracker()) for _ in range(2)]
    timed_views = [TimedView(View(IMAGE, CAMERA), 1.0)] * 2
    people_in_streams(streams, timed_views)
    with monkeypatch.context() as patch:
        patch.setattr(streams[0].tracker, '_reidentify', lambda camera: 1 / 0)
        failed, other = outcomes_in_streams(streams, timed_views)
    assert isinstance(failed.people, ZeroDivisionError)
    assert other.people.ids.tolist() == [1]
    assert [people.ids.tolist() for people in people_in_streams(streams, timed_views)] == [
        [2],
        [1],
    ]


def test_people_have_arrays_of_the_network(metrabs_model, street):
    options = Options(suppress_implausible_poses=False)
    stream = PeopleStream(BoxFinder(metrabs_model, options), Tracker(smoothing=0.0))
    camera = Camera(np.array([[900.0, 0, 384], [0, 900, 288], [0, 0, 1]]))
    people = stream(street, camera, 0.0)
    assert len(people) >= 4
    assert people.poses3d_mm.shape == (len(people), 40, 3)
    assert people.joint_confidence.shape == people.in_view.shape == (len(people), 40)
    np.testing.assert_allclose(camera.project(people.poses3d_mm), people.poses2d_px)
    hands = people.in_convention(metrabs_model.convention('kinect_4'))
    assert hands.poses3d_mm.shape == (len(people), 4, 3)


def test_each_model_has_its_way_through_a_stream(model, metrabs_model):
    assert isinstance(finder_for(model, Options()), PeopleFollower)
    assert isinstance(finder_for(metrabs_model, Options(num_aug=3)), BoxFinder)
    with pytest.raises(ValueError, match='num_aug is 3'):
        finder_for(model, Options(num_aug=3))
