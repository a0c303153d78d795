"""The detector runs every few frames and after a loss; predicted boxes are used in between."""

from __future__ import annotations

import numpy as np
import pytest
from known_networks import KnownNetworks, body_at
from test_people import people_at

from metrabs_ros.backends.selection import Choice
from metrabs_ros.camera import Camera
from metrabs_ros.detectors.boxes import Boxes
from metrabs_ros.options import Options, View
from metrabs_ros.plausibility import plausible_poses
from metrabs_ros.pose_estimator import PoseEstimator, Poses
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33
from metrabs_ros.tracking.box_following import BoxFollower, to_people
from metrabs_ros.tracking.person_tracker import PersonTracker
from metrabs_ros.tracking.timed_view import TimedView
from metrabs_ros.tracking.tracker import Tracker

IMAGE = np.zeros((480, 640, 3), np.uint8)
CAMERA = Camera(np.array([[500.0, 0, 320], [0, 500, 240], [0, 0, 1]]))
A, B = (0.0, 0.0, 4000.0), (1500.0, 0.0, 5000.0)


class Crowd(PoseEstimator):
    """People at given positions; a box yields the pose of the nearest one."""

    def __init__(self, *places):
        choice = Choice('none', 'fp32', 'nowhere', 'nothing is calculated')
        super().__init__({'': BLAZEPOSE_33.within(BLAZEPOSE_33)}, choice)
        self.places = list(places)
        self.log = []

    def check(self, options):
        pass

    def find_people(self, views, options):
        self.log.extend('detect' for _ in views)
        return [self._poses(people_at(*self.places), options) for _ in views]

    def pose_people(self, views, boxes_px, options):
        self.log.extend(map(len, boxes_px))
        return [self._poses(self._nearest(own_px), options, own_px) for own_px in boxes_px]

    def plausible_people(self, poses):
        return plausible_poses(poses, self.skeleton)

    def _nearest(self, boxes_px):
        people = people_at(*self.places)
        centres = people.boxes_px[:, :2] + people.boxes_px[:, 2:] / 2
        nearest = [
            np.linalg.norm(centres - (box[:2] + box[2:] / 2), axis=-1).argmin() for box in boxes_px
        ]
        return people.select(np.array(nearest, int))

    def _poses(self, people, options, boxes_px=None):
        return Poses(
            people.boxes_px if boxes_px is None else boxes_px,
            people.confidence,
            np.repeat(people.poses3d_mm[:, None], options.num_aug, axis=1),
            np.repeat(people.poses2d_px[:, None], options.num_aug, axis=1),
        )


def frames(crowd, rate_hz, count, detect_interval=0, options=None):
    tracker = PersonTracker(crowd, options or Options(num_aug=2), detect_interval)
    for i in range(count):
        (people,) = tracker.process([TimedView(View(IMAGE, CAMERA), i / rate_hz)])
        yield i, people


def test_tracks_are_followed_in_their_predicted_boxes_between_detector_runs():
    crowd = Crowd(A, B)
    for i, people in frames(crowd, 30, 11):
        assert people.ids.tolist() == [1, 2]
        crowd.places = [(10.0 * i, 0, 4000), (1500.0 - 20 * i, 0, 5000)]
    assert crowd.log == ['detect', *[2] * 4, 'detect', *[2] * 4, 'detect']


def test_interval_1_runs_the_detector_in_each_frame():
    crowd = Crowd(A)
    assert len(list(frames(crowd, 30, 5, detect_interval=1))) == 5
    assert crowd.log == ['detect'] * 5


@pytest.mark.parametrize('rate_hz', [2, 5, 10, 30])
def test_new_people_are_published_within_half_a_second(rate_hz):
    crowd = Crowd(A)
    entered_s = None
    for i, people in frames(crowd, rate_hz, 20 * rate_hz, detect_interval=1000):
        if entered_s is None and i / rate_hz > 3.01:
            crowd.places = [A, B]
            entered_s = (i + 1) / rate_hz
        if len(people) == 2:
            break
    assert i / rate_hz - entered_s <= 0.5 + 1e-9


def test_the_detector_runs_in_the_frame_after_a_loss():
    crowd = Crowd(A, B)
    for i, _ in frames(crowd, 30, 9, detect_interval=100):
        # The predicted box of the person that left contains a pose that does not fill it.
        crowd.places = [A] if i >= 3 else crowd.places
    assert crowd.log[:4] == ['detect', 2, 2, 2]
    assert crowd.log[4] == 2
    assert crowd.log[5] == 'detect'
    assert crowd.log.count('detect') == 4


def test_poses_are_estimated_in_external_boxes():
    crowd = Crowd(A, B)
    boxes = Boxes(people_at(B).boxes_px, np.array([0.6]))
    (people,) = PersonTracker(crowd).process([TimedView(View(IMAGE, CAMERA), 1.0, boxes)])
    assert crowd.log == [1]
    assert people.confidence.tolist() == [0.6]
    np.testing.assert_allclose(people.positions_mm, [B], atol=1)


class CrowdWithFalseDetections(Crowd):
    """A person, and a position with a false detection in a share of the detector's runs."""

    def __init__(self, real, false_position, share, seed=0):
        super().__init__(real)
        self.real, self.false_position, self.share = real, false_position, share
        self.rng = np.random.default_rng(seed)
        self.runs, self.detected = 0, 0

    def find_people(self, views, options):
        is_detected = self.rng.random() < self.share
        self.runs += 1
        self.detected += is_detected
        self.places = [self.real, self.false_position] if is_detected else [self.real]
        return super().find_people(views, options)

    def pose_people(self, views, boxes_px, options):
        # Poses in the boxes of false detections are plausible.
        self.places = [self.real, self.false_position]
        return super().pose_people(views, boxes_px, options)


@pytest.mark.slow
@pytest.mark.parametrize('share', [1 / 2, 1 / 3, 1 / 5])
@pytest.mark.parametrize('detect_interval', [0, 1])
@pytest.mark.parametrize('rate_hz', [5, 10, 30])
def test_false_detections_are_not_published_more_often_than_they_are_detected(
    rate_hz, detect_interval, share
):
    crowd, published, count = CrowdWithFalseDetections(A, B, share), 0, 250
    for _, people in frames(crowd, rate_hz, count, detect_interval, Options()):
        published += int((people.positions_mm[:, 0] > 700).sum())
        assert (people.positions_mm[:, 0] < 700).sum() == 1
    assert published / count <= crowd.detected / crowd.runs


@pytest.mark.parametrize('detect_interval', [0, 1, 10])
@pytest.mark.parametrize('rate_hz', [5, 10, 30])
def test_occluded_people_are_extrapolated_at_any_interval(rate_hz, detect_interval):
    crowd, hidden_s = Crowd(A, B), 3.0
    for i, people in frames(crowd, rate_hz, 4 * rate_hz, detect_interval):
        if (i + 1) / rate_hz >= hidden_s:
            crowd.places = [A]
        if i / rate_hz < hidden_s + 0.8:
            assert people.ids.tolist() == [1, 2]


def test_boxes_without_rays_do_not_affect_the_others(metrabs_model, street):
    options = Options(suppress_implausible_poses=False)
    matrix = np.array([[100.0, 0, 384], [0, 100, 288], [0, 0, 1]])
    view = View(street, Camera(matrix, np.zeros(4), fisheye=True))
    boxes = Boxes(np.array([[0.0, 0, 30, 30], [300, 200, 100, 200]]), np.array([0.9, 0.8]))
    (people,) = PersonTracker(metrabs_model, options).process([TimedView(view, 1.0, boxes)])
    assert people.confidence.tolist() == [0.8]
    # The predicted box of one track is at the image edge, where the lens has no rays.
    predicted = people.select(np.zeros(2, int))
    predicted.boxes_px[0] = 0, 0, 30, 30
    follower = BoxFollower(metrabs_model, options, detect_interval=10)
    assert follower.select_boxes(TimedView(view, 1.05), predicted) is None
    assert follower.select_boxes(TimedView(view, 1.1), predicted).boxes_px.tolist() == [
        people.boxes_px[0].tolist()
    ]


def test_poses_are_estimated_in_at_most_max_detections_external_boxes():
    crowd = Crowd(A, B)
    boxes = Boxes(people_at(*[A, B] * 5).boxes_px, np.linspace(0.1, 1, 10))
    tracker = PersonTracker(crowd, Options(max_detections=3))
    tracker.process([TimedView(View(IMAGE, CAMERA), 1.0, boxes)])
    assert crowd.log == [3]


def cameras(count, stamp_s, boxes=None):
    """Return equal images of several cameras."""
    return [TimedView(View(IMAGE, CAMERA), stamp_s, boxes, str(i)) for i in range(count)]


class BatchedCrowd(Crowd):
    """Counts the runs of the network for several images."""

    def find_people(self, views, options):
        self.log.append(f'{len(views)} images')
        return super().find_people(views, options)


def test_cameras_share_a_run_of_the_network_and_have_their_own_tracks():
    crowd = BatchedCrowd(A)
    tracker = PersonTracker(crowd)
    for stamp_s in (0.0, 0.03):
        assert [p.ids.tolist() for p in tracker.process(cameras(2, stamp_s))] == [[1], [1]]
    assert crowd.log[0] == '2 images'
    tracker.reset('0')
    assert [p.ids.tolist() for p in tracker.process(cameras(2, 0.06))] == [[2], [1]]
    tracker.reset()
    assert [p.ids.tolist() for p in tracker.process(cameras(2, 0.09))] == [[3], [2]]


class Fragile(Crowd):
    """Fails for the whole batch if the first pixel of an image is not black."""

    def check_all(self, views):
        if any(view.image[0, 0].any() for view in views):
            raise RuntimeError('the network fails')

    def find_people(self, views, options):
        self.check_all(views)
        return super().find_people(views, options)

    def pose_people(self, views, boxes_px, options):
        self.check_all(views)
        return super().pose_people(views, boxes_px, options)


@pytest.mark.parametrize('boxes', [None, Boxes(people_at(A).boxes_px, np.ones(1))])
def test_a_failing_image_does_not_affect_other_cameras(boxes):
    bad = View(IMAGE + np.uint8(255), CAMERA)

    def results(has_failures):
        """Return the people of the first and third camera, and the frames that failed."""
        tracker = PersonTracker(Fragile(A, B))
        people, failed = [], []
        for i in range(12):
            views = cameras(3, i / 10, boxes)
            if has_failures and i in (0, 3, 5, 6):
                views[1] = views[1]._replace(view=bad)
            results = tracker.process_each(views)
            people += [results[0].people, results[2].people]
            if isinstance(results[1].people, Exception):
                failed.append(i)
            assert all((r.batch_error is not None) == (i in failed) for r in results)
        return people, failed

    undisturbed, failed = results(has_failures=False)
    assert not failed
    disturbed, failed = results(has_failures=True)
    assert failed == [0, 3, 5, 6]
    for expected, actual in zip(undisturbed, disturbed):
        assert actual.ids.tolist() == expected.ids.tolist()
        np.testing.assert_array_equal(actual.poses3d_mm, expected.poses3d_mm)
        np.testing.assert_array_equal(actual.ages_s, expected.ages_s)


def test_process_raises_the_exception_of_an_image():
    bad = TimedView(View(IMAGE + np.uint8(255), CAMERA), 1.0)
    with pytest.raises(RuntimeError, match='the network fails'):
        PersonTracker(Fragile(A)).process([bad])


def test_a_failing_track_update_deletes_the_tracks_of_that_camera_only(monkeypatch):
    tracker = PersonTracker(Crowd(A))
    tracker.process(cameras(2, 1.0))
    update = Tracker.update
    calls = []

    def failing_first(self, *args):
        calls.append(self)
        return 1 / 0 if len(calls) == 1 else update(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Tracker, 'update', failing_first)
        failed, other = tracker.process_each(cameras(2, 1.1))
    assert isinstance(failed.people, ZeroDivisionError)
    assert other.people.ids.tolist() == [1]
    assert [p.ids.tolist() for p in tracker.process(cameras(2, 1.2))] == [[2], [1]]


@pytest.mark.parametrize('networks', [lambda: Crowd(A), lambda: KnownNetworks(body_at(A))])
def test_images_without_a_result_have_no_detections(monkeypatch, networks):
    tracker = PersonTracker(networks())
    (view, *_) = cameras(1, 1.0)
    tracker.process([view])
    assert len(tracker.detections(view.camera_name).people) == 1
    with monkeypatch.context() as patch:
        patch.setattr(Tracker, 'update', lambda *_: 1 / 0)
        (failed,) = tracker.process_each(cameras(1, 1.1))
    assert isinstance(failed.people, ZeroDivisionError)
    assert failed.is_detected
    assert tracker.detections(view.camera_name) is None
    tracker.process(cameras(1, 1.2))
    assert tracker.detections(view.camera_name).ids.tolist() == [2]


def test_replayed_images_leave_the_tracker_as_processed_ones():
    def rest(replayed):
        """Return the people of frames 6 to 11, and the calls of the network for them."""
        crowd = Crowd(A, B)
        tracker, log = PersonTracker(crowd), []
        for i in range(6):
            view = TimedView(View(IMAGE, CAMERA), i / 30)
            tracker.process([view])
            detections = tracker.detections()
            log.append((view, detections.people, detections.state))
        if replayed:
            crowd.log.clear()
            tracker = PersonTracker(crowd)
            for entry in log:
                tracker.replay(*entry)
            assert not crowd.log
        crowd.log.clear()
        views = [TimedView(View(IMAGE, CAMERA), i / 30) for i in range(6, 12)]
        return [tracker.process([view])[0] for view in views], crowd.log

    (processed, calls), (resumed, calls_of_resumed) = rest(False), rest(True)
    assert calls == calls_of_resumed
    for expected, actual in zip(processed, resumed):
        assert actual.ids.tolist() == expected.ids.tolist()
        np.testing.assert_array_equal(actual.poses3d_mm, expected.poses3d_mm)


def test_people_have_arrays_of_the_network(metrabs_model, street):
    options = Options(suppress_implausible_poses=False)
    tracker = PersonTracker(metrabs_model, options, smoothing=0.0)
    camera = Camera(np.array([[900.0, 0, 384], [0, 900, 288], [0, 0, 1]]))
    (people,) = tracker.process([TimedView(View(street, camera), 0.0)])
    assert len(people) >= 4
    assert people.poses3d_mm.shape == (len(people), 40, 3)
    assert people.joint_confidence.shape == people.in_view.shape == (len(people), 40)
    np.testing.assert_allclose(camera.project(people.poses3d_mm), people.poses2d_px)
    hands = people.in_convention(metrabs_model.convention('kinect_4'))
    assert hands.poses3d_mm.shape == (len(people), 4, 3)


def test_options_that_the_model_does_not_support_are_rejected(model):
    with pytest.raises(ValueError, match='num_aug is 3'):
        PersonTracker(model, Options(num_aug=3))


def test_skeletons_are_rejected_because_people_have_all_joints():
    options = Options(skeleton='coco_17')
    with pytest.raises(ValueError, match=r"skeleton is 'coco_17'; .* People\.in_convention"):
        PersonTracker(Crowd(A), options)
    tracker = PersonTracker(Crowd(A))
    tracker.options = options
    with pytest.raises(ValueError, match="skeleton is 'coco_17'"):
        tracker.process([TimedView(View(IMAGE, CAMERA), 1.0)])


def test_parameters_out_of_range_are_rejected():
    with pytest.raises(ValueError, match='max_lost is -1'):
        PersonTracker(Crowd(A), max_lost=-1)


@pytest.mark.parametrize('has_confidences', [True, False])
def test_people_in_boxes_keep_the_image_points_of_the_network(has_confidences):
    people = people_at((0, -1500, 4000))  # The head is above the image.
    found_px = people.poses2d_px + np.array([2.0, -1.0])
    own = to_people(
        Poses(
            people.boxes_px,
            people.confidence,
            people.poses3d_mm[:, None],
            people.poses2d_px[:, None],
            people.joint_confidence if has_confidences else np.zeros((1, 0)),
            found_px[:, None],
        ),
        BLAZEPOSE_33,
        IMAGE.shape,
    )
    # Networks without confidences find any points for joints outside the image.
    is_kept = own.in_view | has_confidences
    assert own.in_view.any()
    assert not own.in_view.all()
    expected_px = np.where(is_kept[..., None], found_px, people.poses2d_px)
    np.testing.assert_array_equal(own.network_poses2d_px, expected_px)
