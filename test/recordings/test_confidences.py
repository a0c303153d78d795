"""The results of annotate have the same joint confidences as the topics of the node."""

from __future__ import annotations

import numpy as np
import pytest
from recorded_bags import START_NS, STEP_NS, messages_in, write_bag

from metrabs_ros.camera import Camera
from metrabs_ros.conversions.people import to_message
from metrabs_ros.conversions.stamps import NS_PER_S
from metrabs_ros.options import Options, View
from metrabs_ros.recordings.annotate import annotate
from metrabs_ros.recordings.options import AnnotateOptions
from metrabs_ros.recordings.typestore import SKELETONS, header_at, message_types, typestore
from metrabs_ros.tracking.person_tracker import PersonTracker
from metrabs_ros.tracking.timed_view import TimedView

FRAMES = 3
FOCAL_PX = 900.0


@pytest.fixture(scope='module')
def part(street):
    """Return a part of the street image with a few people, RGB."""
    height, width = street.shape[:2]
    return np.ascontiguousarray(street[height // 4 :, : width // 2])


def annotated(tmp_path, image, model, **options):
    """Return the SkeletonArrays that annotate writes for repeated frames of an image."""
    bag = write_bag(tmp_path / 'bag', [image[..., ::-1]] * FRAMES)
    annotate(bag, tmp_path / 'results', AnnotateOptions(**options), model, lambda message: None)
    return [
        typestore().deserialize_cdr(data, SKELETONS)
        for _, _, data in messages_in(tmp_path / 'results', '/camera/pose/skeletons')
    ]


def camera_of(image):
    height, width = image.shape[:2]
    return Camera(np.array([[FOCAL_PX, 0, width / 2], [0, FOCAL_PX, height / 2], [0, 0, 1]]))


def published(image, model):
    """Return the SkeletonArrays that the node makes of the same frames."""
    tracker = PersonTracker(model, max_lost=1.0, min_hits=1, smoothing=0.0)
    messages = []
    for i in range(FRAMES):
        stamp_ns = START_NS + i * STEP_NS
        view = View(image, camera_of(image))
        (people,) = tracker.process([TimedView(view, stamp_ns / NS_PER_S)])
        header = header_at(stamp_ns, 'camera_optical_frame')
        messages.append(to_message(people.select(people.seen), header, message_types()))
    return messages


def test_followed_people_equal_those_that_the_node_publishes(tmp_path, part, model):
    for annotated_message, published_message in zip(
        annotated(tmp_path, part, model, follow=True), published(part, model)
    ):
        assert len(annotated_message.skeletons) == len(published_message.skeletons)
        for skeleton, expected in zip(annotated_message.skeletons, published_message.skeletons):
            assert skeleton.id == expected.id
            for name in ('confidences', 'standard_deviations', 'in_view'):
                np.testing.assert_allclose(
                    getattr(skeleton, name), getattr(expected, name), rtol=1e-6
                )
            np.testing.assert_allclose(skeleton.confidence, expected.confidence, rtol=1e-6)
            assert np.ptp(skeleton.confidences) > 0.01
    assert len(annotated_message.skeletons)


def test_joint_confidences_are_the_visibilities_of_the_network(tmp_path, part, model):
    (skeletons, *_) = annotated(tmp_path, part, model)
    assert all(np.ptp(skeleton.confidences) > 0.01 for skeleton in skeletons.skeletons)
    (poses,) = model.find_people([View(part, camera_of(part))], Options())
    assert len(skeletons.skeletons) == len(poses.scores) > 0
    for skeleton, visibility, score in zip(
        skeletons.skeletons, poses.joint_confidence, poses.scores
    ):
        np.testing.assert_allclose(skeleton.confidences, visibility, rtol=1e-6)
        assert skeleton.confidence == pytest.approx(score)
        # Standard deviations decrease with the confidence of a joint.
        order = np.argsort(skeleton.confidences)
        assert (np.diff(np.asarray(skeleton.standard_deviations)[order]) <= 1e-6).all()
