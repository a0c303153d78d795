"""Detected people are confirmed by the landmark network, up to the maximum number."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from known_networks import CAMERA, IMAGE, KnownNetworks, body_at

from metrabs_ros.blazepose.estimator import DEFAULT_SAMPLING, LARGE_SIDE_PX, PosedRegions
from metrabs_ros.movenet.detector import BOTH_SIDES_PX
from metrabs_ros.options import Options, View

PLACES_MM = [(x, 0, 4000) for x in (-900, 0, 900)]


class Doubtful(KnownNetworks):
    """Networks that disagree about the people with the highest scores of the detector."""

    rejected = 0

    def _keypoints(self, *args):
        keypoints = super()._keypoints(*args)
        point_scores = keypoints.point_scores.copy()
        point_scores[: self.rejected] = 0.01
        return dataclasses.replace(keypoints, point_scores=point_scores)


@pytest.mark.parametrize('rejected', [0, 1, 2, 3])
@pytest.mark.parametrize('limit', [-1, 0, 1, 2, 3, 4])
def test_people_who_are_not_confirmed_do_not_count_for_the_maximum_number(rejected, limit):
    networks = Doubtful(*map(body_at, PLACES_MM))
    networks.rejected = rejected
    (poses,) = networks.find_people([View(IMAGE, CAMERA)], Options(max_detections=limit))
    hips_mm = poses.poses3d_mm[:, 0, 23:25].mean(axis=1)
    expected_mm = PLACES_MM[rejected:] if limit < 0 else PLACES_MM[rejected:][:limit]
    np.testing.assert_allclose(hips_mm, np.reshape(expected_mm, (-1, 3)), atol=1e-6)


def test_a_person_who_is_detected_twice_counts_once_for_the_maximum_number():
    networks = KnownNetworks(*map(body_at, [PLACES_MM[0], PLACES_MM[0], PLACES_MM[2]]))
    (poses,) = networks.find_people([View(IMAGE, CAMERA)], Options(max_detections=2))
    hips_mm = poses.poses3d_mm[:, 0, 23:25].mean(axis=1)
    np.testing.assert_allclose(hips_mm, [PLACES_MM[0], PLACES_MM[2]], atol=1e-6)


@pytest.mark.parametrize('count', [50, 200])
def test_the_number_of_crops_is_proportional_to_the_number_of_people(monkeypatch, count):
    places = np.stack(np.meshgrid(np.arange(-10, 10), np.arange(10)), axis=-1).reshape(-1, 2)
    bodies_mm = [body_at((2000 * x, 3000 * y - 13_000, 40_000)) for x, y in places[:count]]
    networks = KnownNetworks(*bodies_mm)
    networks.scores = np.linspace(0.9, 0.5, count).tolist()
    crops = []
    estimate = KnownNetworks.estimate

    def counted(self, image, camera, regions, *args):
        crops.append(len(regions))
        return estimate(self, image, camera, regions, *args)

    monkeypatch.setattr(KnownNetworks, 'estimate', counted)
    (poses,) = networks.find_people([View(IMAGE, CAMERA)], Options())
    assert len(poses.scores) == count
    assert sum(crops) == 2 * count


SMALL = [(-3000, 0, 30_000), (0, 0, 30_000), (3000, 0, 30_000)]
LARGE = (0, 0, 4000)


@pytest.mark.parametrize(
    ('scale', 'places_mm', 'is_repeated'),
    [
        (2, [LARGE, *SMALL], True),
        (2, [LARGE, *SMALL[:2]], False),
        (2, [], False),
        (1, [LARGE, *SMALL], False),
    ],
)
def test_large_images_with_small_people_are_searched_at_a_higher_resolution(
    scale, places_mm, is_repeated
):
    networks = KnownNetworks(*map(body_at, places_mm))
    image = np.zeros((scale * 480, scale * 640, 3), np.uint8)
    networks.find_people([View(image, CAMERA)], Options())
    further = [(LARGE_SIDE_PX,)] if is_repeated else []
    assert networks.passes == [BOTH_SIDES_PX, *further]


class PresentInOneImage(KnownNetworks):
    """Crops show a person, their mirror images do not."""

    def estimate(self, image, camera, regions, sampling=DEFAULT_SAMPLING, mirrored=None):
        posed = super().estimate(image, camera, regions, sampling, mirrored)
        people = posed.people
        if mirrored is not None:
            people = dataclasses.replace(people, confidence=np.where(mirrored, 0.01, 0.95))
        return PosedRegions(people, posed.regions)


def test_a_thing_that_is_no_person_in_the_mirror_image_is_not_confirmed():
    view = View(IMAGE, CAMERA)
    (poses,) = PresentInOneImage(body_at(LARGE)).find_people([view], Options())
    assert len(poses.scores) == 0
    (poses,) = KnownNetworks(body_at(LARGE)).find_people([view], Options())
    # The score of the detection times the presence.
    assert poses.scores.tolist() == pytest.approx([0.9 * 0.9])
