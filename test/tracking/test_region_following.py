"""BlazePose in image streams: tracks are followed, and the detector runs by a schedule."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest
from known_networks import CAMERA as LEVEL_CAMERA
from known_networks import IMAGE, KnownNetworks, body_at

from metrabs_ros.blazepose.agreement import MAX_APART_MM, pose_distance_mm
from metrabs_ros.blazepose.estimator import Sampling
from metrabs_ros.camera import Camera
from metrabs_ros.movenet.detector import BOTH_SIDES_PX, LARGE_PEOPLE_PX, SMALL_PEOPLE_PX
from metrabs_ros.options import Options, View
from metrabs_ros.tracking.person_tracker import PersonTracker
from metrabs_ros.tracking.region_following import MAX_PUBLICATION_S, MAX_UNSUPPORTED_PASSES
from metrabs_ros.tracking.timed_view import TimedView

RATE_HZ = 10.0
RATES_HZ = [
    10.0,
    12.5,
    30.0,
    *(pytest.param(rate, marks=pytest.mark.slow) for rate in (15.0, 20.0, 60.0)),
]
CAMERA = Camera.from_fov(55, (576, 600))


def panned(street, shift_px):
    """Return the part of the street that a panned camera of 600 x 576 pixels sees."""
    return np.ascontiguousarray(street[:, shift_px : shift_px + 600])


class Stream:
    """Images at a constant rate."""

    def __init__(self, model, detect_interval=0, rate_hz=RATE_HZ, **options):
        self.tracker = PersonTracker(model, Options(**options), detect_interval)
        self.frames = 0
        self.rate_hz = rate_hz

    def __call__(self, image, camera=CAMERA):
        self.frames += 1
        timed_view = TimedView(View(image, camera), self.frames / self.rate_hz)
        return self.tracker.process([timed_view])[0]


def test_people_keep_their_ids_while_the_camera_pans(model, street):
    follow = Stream(model)
    before = follow(panned(street, 0))
    for shift_px in range(4, 60, 4):
        after = follow(panned(street, shift_px))
    both = set(before.ids.tolist()) & set(after.ids.tolist())
    assert len(both) >= 3
    for person in both:
        x_before = before.poses2d_px[before.ids == person][0, 23:25, 0].mean()
        x_after = after.poses2d_px[after.ids == person][0, 23:25, 0].mean()
        assert x_after - x_before == pytest.approx(-shift_px, abs=8)


@pytest.mark.parametrize(('pose_is_known', 'step_degrees'), [(True, 1.5), (False, 0.5)])
def test_people_keep_their_ids_while_the_camera_turns(model, street, pose_is_known, step_degrees):
    matrix = np.array([[900.0, 0, 384], [0, 900, 288], [0, 0, 1]])
    follow, people = Stream(model), []
    for i in range(15):
        yaw = np.radians(step_degrees * i)
        rotation = np.array(
            [[np.cos(yaw), 0, -np.sin(yaw)], [0, 1, 0], [np.sin(yaw), 0, np.cos(yaw)]]
        )
        turned = cv2.warpPerspective(
            street, matrix @ rotation @ np.linalg.inv(matrix), street.shape[1::-1]
        )
        extrinsics = np.eye(4)
        if pose_is_known:
            extrinsics[:3, :3] = rotation
        camera = Camera(matrix, extrinsic_matrix=extrinsics)
        people.append(follow(turned, camera))
    both = set(people[4].ids.tolist()) & set(people[-1].ids.tolist())
    assert len(both) >= 3
    for person in both:
        first, last = (own.select(own.ids == person) for own in (people[4], people[-1]))
        turned_by = np.degrees(
            np.diff([np.arctan2(*own.positions_mm[0, [0, 2]]) for own in (first, last)])
        )
        assert turned_by == pytest.approx(-10 * step_degrees, abs=1.5)


def test_interval_1_runs_the_detector_in_each_frame(model, street):
    networks = KnownNetworks(body_at((0, 0, 3000)))
    follow = Stream(networks, detect_interval=1)
    for i in range(5):
        follow(IMAGE, LEVEL_CAMERA)
        assert networks.passes == [BOTH_SIDES_PX] * (i + 1)
    follow = Stream(model, detect_interval=1)
    for _ in range(3):
        follow(np.full_like(street, 90))
    assert not len(follow(street))
    follow(street)
    assert len(follow(street)) >= 5


def test_the_confidence_of_new_and_of_followed_people_has_the_same_meaning():
    networks = KnownNetworks(body_at((0, 0, 3000)))
    networks.scores = [0.6]
    follow = Stream(networks)
    confidences = [follow(IMAGE, LEVEL_CAMERA).confidence.tolist() for _ in range(8)]
    assert () in passes_in_frames(networks, follow, 3)
    # The score of the detection times the presence.
    assert all(confidence == pytest.approx([0.6 * 0.9]) for confidence in confidences)
    networks.scores = [0.8]
    passes_in_frames(networks, follow, 6)
    assert follow(IMAGE, LEVEL_CAMERA).confidence.tolist() == pytest.approx([0.8 * 0.9])


def test_new_people_are_found_after_one_pass_of_the_detector(model, street):
    follow = Stream(model, detect_interval=10)
    for _ in range(3):
        follow(np.full_like(street, 90))
    for _ in range(10 + 3):
        people = follow(street)
    assert len(people) >= 5


def test_ids_are_not_reused(model, street):
    follow = Stream(model)
    first = set(follow(street).ids.tolist())
    follow.tracker.reset()
    assert len(follow(np.full_like(street, 90))) == 0
    follow.tracker.reset()
    second = set(follow(street).ids.tolist())
    assert first
    assert second
    assert not first & second


def test_the_detector_runs_after_a_change_of_the_image_size(model, street, player):
    follow = Stream(model)
    follow(street)
    for _ in range(3):
        people = follow(player, Camera.from_fov(55, player.shape))
    assert len(people) == 1


@pytest.mark.slow
@pytest.mark.parametrize('rate_hz', [10.0, 30.0])
@pytest.mark.parametrize(
    'box_px', [(331, 218, 38, 87), (623, 125, 21, 68), (41, 177, 20, 70), (536, 251, 46, 96)]
)
def test_people_entering_the_image_are_published_within_300_ms(model, street, box_px, rate_hz):
    left, top, width, height = box_px
    place = (slice(top - 5, top + height + 5), slice(left - 5, left + width + 5))
    empty = street.copy()
    empty[place] = np.median(street[place], axis=(0, 1))
    # At each phase of the schedule of the detector.
    for frames_empty in range(4, 4 + round(MAX_PUBLICATION_S * rate_hz), round(rate_hz / 10)):
        follow = Stream(model, rate_hz=rate_hz)
        for _ in range(frames_empty):
            assert not sees(follow(empty), box_px)
        frames_before = 0
        while not sees(follow(street), box_px):
            frames_before += 1
            assert frames_before / rate_hz <= MAX_PUBLICATION_S + 1e-9


def passes_in_frames(networks, follow, count):
    """Return the input sizes of the detector in each of the next frames, () if it does not run."""
    frames = []
    for _ in range(count):
        networks.passes.clear()
        follow(IMAGE, LEVEL_CAMERA)
        frames.append(tuple(itertools.chain(*networks.passes)))
    return frames


@pytest.mark.parametrize('people', [0, 2])
@pytest.mark.parametrize('rate_hz', RATES_HZ)
def test_the_detector_runs_as_rarely_as_new_people_allow(people, rate_hz):
    networks = KnownNetworks(*(body_at((900 * i, 0, 4000)) for i in range(people)))
    frames = passes_in_frames(networks, Stream(networks, rate_hz=rate_hz), round(3 * rate_hz))
    assert frames[0] == BOTH_SIDES_PX
    assert set(frames[1:]) == {(), (LARGE_PEOPLE_PX,), (SMALL_PEOPLE_PX,)}
    for side_px in BOTH_SIDES_PX:
        runs = [i for i, sides_px in enumerate(frames) if side_px in sides_px]
        steps_s = np.diff(runs) / rate_hz
        assert (steps_s < MAX_PUBLICATION_S + 1e-6).all()
        assert (steps_s[1:] > 0.2 + 1e-6).all()
    # The two sizes alternate.
    sizes = [sides_px for sides_px in frames[1:] if sides_px]
    assert all(a != b for a, b in itertools.pairwise(sizes))


@pytest.mark.parametrize('side_px', BOTH_SIDES_PX)
@pytest.mark.parametrize('rate_hz', RATES_HZ)
def test_people_found_at_one_size_only_are_published_in_time_at_any_phase(rate_hz, side_px):
    bodies_mm = [body_at((-700, 0, 4000)), body_at((700, 0, 4000))]
    for start in range(10, 10 + round(MAX_PUBLICATION_S * rate_hz) + 1):
        networks = KnownNetworks(bodies_mm[0])
        follow = Stream(networks, rate_hz=rate_hz)
        passes_in_frames(networks, follow, start)
        networks.bodies_mm, networks.scores = bodies_mm, [0.9, 0.8]
        networks.only_found_at_px[1] = side_px
        frames_before = 0
        while len(follow(IMAGE, LEVEL_CAMERA)) < 2:
            frames_before += 1
            assert frames_before / rate_hz <= MAX_PUBLICATION_S + 1e-6


def test_the_detector_runs_at_both_sizes_after_a_track_is_lost():
    networks = KnownNetworks(body_at((0, 0, 3000)), body_at((900, 0, 4000)))
    follow = Stream(networks, rate_hz=30)
    passes_in_frames(networks, follow, 9)
    assert passes_in_frames(networks, follow, 2) == [(), ()]
    del networks.bodies_mm[1], networks.scores[1]
    # The loss is noticed in the first of these frames.
    frames = passes_in_frames(networks, follow, 10)
    assert frames[:4] == [(), BOTH_SIDES_PX, BOTH_SIDES_PX, ()]
    # Until the track is deleted, the schedule is as before.
    assert BOTH_SIDES_PX not in frames[4:]


def test_the_detector_runs_after_a_second_loss_while_another_track_is_lost():
    bodies_mm = [body_at((x, 0, 4000)) for x in (-900, 0, 900)]
    networks = KnownNetworks(*bodies_mm)
    follow = Stream(networks, rate_hz=30)
    passes_in_frames(networks, follow, 9)
    for remaining in (2, 1):
        del networks.bodies_mm[remaining], networks.scores[remaining]
        frames = passes_in_frames(networks, follow, 6)
        assert BOTH_SIDES_PX in frames[:3]


def test_an_explicit_detector_threshold_does_not_apply_to_known_people():
    networks = KnownNetworks(body_at((0, 0, 3000)))
    follow = Stream(networks, rate_hz=30, detector_threshold=0.38)
    passes_in_frames(networks, follow, 9)
    networks.scores[0] = 0.3
    for _ in range(60):
        assert len(follow(IMAGE, LEVEL_CAMERA)) == 1


def test_the_detector_runs_in_each_frame_if_stamps_do_not_advance():
    networks = KnownNetworks(body_at((0, 0, 3000)))
    frames = passes_in_frames(networks, Stream(networks, rate_hz=np.inf), 5)
    large, small = (LARGE_PEOPLE_PX,), (SMALL_PEOPLE_PX,)
    assert frames in (
        [BOTH_SIDES_PX, large, small, large, small],
        [BOTH_SIDES_PX, small, large, small, large],
    )


@pytest.mark.parametrize('detect_interval', [0, 1, 4])
def test_replayed_images_leave_the_follower_as_processed_ones(detect_interval):
    def rest(replayed):
        """Return the people of frames 20 to 39, and the runs of the detector in them."""
        networks = KnownNetworks()
        tracker, log, people = PersonTracker(networks, detect_interval=detect_interval), [], []
        for i in range(40):
            step = 40 * i
            networks.bodies_mm = [body_at((step - 800, 0, 4000)), body_at((800 - step, 0, 5000))]
            networks.scores = [0.9, 0.5 if i % 7 else 0.1]
            # The second person is hidden for a while, and later the detector misses it.
            if i in range(8, 11):
                del networks.bodies_mm[1], networks.scores[1]
            elif i > 14:
                networks.scores[1] = 0.0
            networks.mistakes_front = (False, True) if i in (12, 19) else ()
            view = TimedView(View(IMAGE, LEVEL_CAMERA), i / 30)
            if i == 20:
                networks.passes.clear()
                if replayed:
                    tracker = PersonTracker(networks, detect_interval=detect_interval)
                    for entry in log:
                        tracker.replay(*entry)
                    assert not networks.passes
            people += tracker.process([view])
            detections = tracker.detections()
            log.append((view, detections.people, detections.state))
        return people[20:], networks.passes

    (processed, runs), (resumed, runs_of_resumed) = rest(False), rest(True)
    assert runs == runs_of_resumed
    for expected, actual in zip(processed, resumed):
        assert actual.ids.tolist() == expected.ids.tolist()
        np.testing.assert_array_equal(actual.poses3d_mm, expected.poses3d_mm)


def detected_at(follow, body_mm):
    """Return how many people the last frame detected at the place of a person."""
    positions_mm = follow.tracker.detections().people.positions_mm
    return int((np.linalg.norm(positions_mm - body_mm[23:25].mean(axis=0), axis=1) < 100).sum())


@pytest.mark.parametrize('rate_hz', [10, 30])
def test_two_tracks_never_follow_the_same_person(rate_hz):
    networks = KnownNetworks(body_at((-800, 0, 4000)), body_at((800, 0, 4400)))
    follow = Stream(networks, rate_hz=rate_hz)
    count = 3 * rate_hz
    for i in range(count):
        # One person walks behind the other one, and is hidden for a while.
        x_mm = 2400 * i / count - 1200
        networks.bodies_mm = [body_at((0, 0, 4000)), body_at((x_mm, 0, 4400))]
        networks.scores = [0.9, 0.8]
        if abs(x_mm) < 500:
            del networks.bodies_mm[1], networks.scores[1]
        people = follow(IMAGE, LEVEL_CAMERA)
        assert len(set(people.ids.tolist())) == len(people)
        assert detected_at(follow, networks.bodies_mm[0]) == 1
        assert len(follow.tracker.detections().people) <= len(networks.bodies_mm)
    assert detected_at(follow, networks.bodies_mm[1]) == 1
    # The first track has followed its own person all the time.
    assert np.abs(people.positions_mm[people.ids == 1] - (0, 0, 4000)).max() < 100


@pytest.mark.parametrize('others_are_lost', [False, True])
@pytest.mark.parametrize('detect_interval', [0, 1, 5])
def test_followed_people_that_the_detector_does_not_support_are_dropped(
    detect_interval, others_are_lost
):
    object_mm = body_at((700, 0, 4000))
    networks = KnownNetworks(body_at((-700, 0, 4000)), object_mm)
    follow = Stream(networks, detect_interval, rate_hz=30)
    passes_in_frames(networks, follow, 20)
    networks.scores[1] = 0.1
    passes = 0
    for i in range(60):
        if others_are_lost and i % 2:
            # The other person is missed in every second frame.
            networks.bodies_mm[0], networks.scores[0] = body_at((-5000, 0, 4000)), 0.0
        else:
            networks.bodies_mm[0], networks.scores[0] = body_at((-700, 0, 4000)), 0.9
        passes += sum(map(bool, passes_in_frames(networks, follow, 1)))
        assert detected_at(follow, object_mm) == (passes <= MAX_UNSUPPORTED_PASSES)
    assert passes > 2 * MAX_UNSUPPORTED_PASSES
    # The object is detected again.
    networks.scores[1] = 0.9
    passes_in_frames(networks, follow, 12)
    assert detected_at(follow, object_mm) == 1


def test_people_with_rare_and_weak_support_are_followed():
    # The detector finds this person at one of its two sizes only, with a low score.
    networks = KnownNetworks(body_at((0, 0, 4000)))
    follow = Stream(networks, rate_hz=30)
    passes_in_frames(networks, follow, 3)
    passes = 0
    for _ in range(60):
        networks.scores = [0.2 if passes % 2 else 0.0]
        passes += sum(map(bool, passes_in_frames(networks, follow, 1)))
        assert detected_at(follow, networks.bodies_mm[0]) == 1


def pose_error_mm(follow, body_mm):
    """Return the error of the pose of the only person that the last frame detected."""
    people = follow.tracker.detections().people
    assert len(people) == 1
    return float(pose_distance_mm(people.poses3d_mm, body_mm[None])[0])


def test_an_estimate_that_mistakes_the_front_is_replaced_by_that_of_the_mirrored_crop():
    body_mm = body_at((0, 0, 3000))
    networks = KnownNetworks(body_mm)
    follow = Stream(networks, rate_hz=30)
    passes_in_frames(networks, follow, 6)
    for mistaken in ((False,), (True,), (False,)):
        networks.mistakes_front = mistaken
        for _ in range(10):
            follow(IMAGE, LEVEL_CAMERA)
            assert pose_error_mm(follow, body_mm) < MAX_APART_MM / 10


def test_an_estimate_that_mistakes_the_front_in_both_crops_is_corrected_by_the_detector():
    body_mm = body_at((0, 0, 3000))
    networks = KnownNetworks(body_mm)
    follow = Stream(networks, rate_hz=30)
    passes_in_frames(networks, follow, 6)
    networks.mistakes_front = (False, True)
    first, *others = passes_in_frames(networks, follow, 2)
    assert first == ()
    # The sudden change is noticed, and the detector runs in the next frame.
    assert others == [BOTH_SIDES_PX]
    assert pose_error_mm(follow, body_mm) < MAX_APART_MM / 10
    for _ in range(30):
        is_checked = any(passes_in_frames(networks, follow, 1))
        error_mm = pose_error_mm(follow, body_mm)
        assert not is_checked or error_mm < MAX_APART_MM / 10


def leaning_by(angle_degrees):
    angle = np.radians(angle_degrees)
    return body_at((0, 0, 3000), up=np.array([np.sin(angle), -np.cos(angle), 0]))


@pytest.mark.parametrize('angle_degrees', [-60, 40])
def test_an_estimate_that_mistakes_the_front_of_a_leaning_person_is_replaced(angle_degrees):
    body_mm = leaning_by(angle_degrees)
    networks = KnownNetworks(body_mm)
    follow = Stream(networks, rate_hz=30)
    passes_in_frames(networks, follow, 6)
    networks.max_turn = np.radians(20)
    frames = passes_in_frames(networks, follow, 30)
    assert pose_error_mm(follow, body_mm) < MAX_APART_MM / 10
    # The detector is not needed for that.
    assert BOTH_SIDES_PX not in frames


@pytest.mark.parametrize('angle_degrees', [0, 40])
def test_followed_people_take_one_run_of_the_network_each(angle_degrees):
    networks = KnownNetworks(leaning_by(angle_degrees), body_at((1200, 0, 5000)))
    follow = Stream(networks, rate_hz=30)
    passes_in_frames(networks, follow, 3)
    networks.crops.clear()
    passes_in_frames(networks, follow, 30)
    assert sum(networks.crops) == 2 * 30


@pytest.mark.parametrize('turn_degrees', [0, 45, 90, 180])
def test_leaning_and_lying_people_are_detected_and_followed(turn_degrees):
    roll = np.radians(turn_degrees)
    body_mm = body_at((0, 0, 4000), up=np.array([np.sin(roll), -np.cos(roll), 0]))
    networks = KnownNetworks(body_mm)
    follow = Stream(networks, rate_hz=30)
    for _ in range(30):
        follow(IMAGE, LEVEL_CAMERA)
        assert pose_error_mm(follow, body_mm) < MAX_APART_MM / 10


@pytest.mark.parametrize('limit', [0, 1, 2])
def test_at_most_max_detections_people_are_followed(limit):
    networks = KnownNetworks(*(body_at((x, 0, 4000)) for x in (-900, 0, 900)))
    follow = Stream(networks, rate_hz=30)
    assert len(follow(IMAGE, LEVEL_CAMERA)) == 3
    follow.tracker.options = Options(max_detections=limit)
    for i in range(30):
        # The detector's scores change their order.
        networks.scores = [0.9, 0.8, 0.7] if i % 2 else [0.7, 0.8, 0.9]
        follow(IMAGE, LEVEL_CAMERA)
        people = follow.tracker.detections().people
        assert people.ids.tolist() == [1, 2, 3][:limit]


def test_the_options_of_sampling_apply_to_new_followed_and_corrected_people():
    networks = KnownNetworks(body_at((0, 0, 3000)))
    follow = Stream(networks, rate_hz=30, antialias_factor=2, internal_batch_size=3)
    for mistakes_front in ((), (False, True)):
        networks.mistakes_front = mistakes_front
        passes_in_frames(networks, follow, 9)
    assert set(networks.samplings) == {Sampling(antialias_factor=2, batch_size=3)}


@pytest.mark.parametrize('suppress', [False, True])
def test_implausible_poses_are_followed_if_they_are_not_suppressed(suppress):
    # A giant of 3.5 m.
    giant_mm = 2 * body_at((0, 0, 2000))
    networks = KnownNetworks(giant_mm)
    follow = Stream(networks, rate_hz=30, suppress_implausible_poses=suppress)
    for _ in range(9):
        follow(IMAGE, LEVEL_CAMERA)
        assert detected_at(follow, giant_mm) == (not suppress)


@pytest.mark.slow
def test_people_leaving_over_an_edge_or_near_the_camera_are_processed(model, player):
    follow = Stream(model)
    camera = Camera.from_fov(55, player.shape)
    for _ in range(5):
        people = follow(player, camera)
    assert len(people) == 1
    # A person leaves quickly over each edge, while coming nearer.
    for shift in ((60, 0), (-60, 0), (0, 60), (0, -60)):
        moving = Stream(model)
        for i in range(8):
            size = 1 + 0.2 * i
            large = cv2.resize(player, None, fx=size, fy=size)
            large = np.roll(large, (shift[1] * i, shift[0] * i), axis=(0, 1))
            height, width = player.shape[:2]
            moving(np.ascontiguousarray(large[:height, :width]), camera)
        moving(np.full_like(player, 90), camera)
        moving(np.full_like(player, 90), camera)


def test_body_parts_of_two_people_are_not_a_third_person(model, office):
    follow, camera = Stream(model), Camera.from_fov(55, office.shape)
    for _ in range(20):
        assert len(follow(office, camera)) == 2


def sees(people, box_px):
    """Tell whether the centre of a person's box is in the middle of a box."""
    centres_px = people.boxes_px[:, :2] + people.boxes_px[:, 2:] / 2
    off_px = np.abs(centres_px - (box_px[0] + box_px[2] / 2, box_px[1] + box_px[3] / 2))
    return bool((off_px < np.array(box_px[2:]) / 2).all(axis=1).any())
