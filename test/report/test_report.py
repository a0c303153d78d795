"""Reports of annotated recordings."""

from __future__ import annotations

import base64
import re

import cv2
import numpy as np
import pytest
from known_people import KnownPeople
from recorded_bags import (
    CAMERA,
    CAMERA_INFO,
    IMAGE,
    START_NS,
    STEP_NS,
    RecordedTopic,
    messages_in,
    write_bag,
)

from metrabs_ros import cli
from metrabs_ros.recordings.annotate import annotate
from metrabs_ros.recordings.options import AnnotateOptions
from metrabs_ros.report.observations import read_observations
from metrabs_ros.report.page import write_report

STEP_MM = 100.0
FRAMES = 20


class Approaching(KnownPeople):
    """A person that approaches the camera, and a second, standing person from frame 10 on."""

    def poses_of(self, view, options):
        i = len(self.seen)
        self.places_mm = [(0, 0, 6000 - STEP_MM * i), (2000, 0, 3000)]
        poses = super().poses_of(view, options)
        return poses if i >= 10 else poses.select(slice(1))


@pytest.fixture
def images():
    return [np.full((120, 160, 3), 90, np.uint8)] * FRAMES


def results_of(tmp_path, images, topics=CAMERA):
    bag = write_bag(tmp_path / 'bag', images, topics)
    annotate(
        bag, tmp_path / 'results', AnnotateOptions(batch=1), Approaching(), lambda message: None
    )
    return tmp_path / 'results'


def test_observations_match_the_annotated_people(tmp_path, images):
    (observations,) = read_observations(results_of(tmp_path, images), print)
    assert observations.topic == '/camera/pose/skeletons'
    assert observations.people.tolist() == [1] * 10 + [2] * 10
    np.testing.assert_allclose(observations.times_s, 0.1 * np.arange(FRAMES), atol=1e-6)
    first = observations.of_person(1)
    np.testing.assert_allclose(
        observations.distances_m[first], 6 - STEP_MM / 1000 * np.arange(FRAMES), atol=1e-3
    )
    assert observations.ground_axes == (0, 2)
    assert observations.gaps() == []
    assert observations.speeds_m_s[first[-1]] == pytest.approx(1.0, abs=0.2)


def test_missing_frames_are_gaps(tmp_path, images):
    later = write_bag(tmp_path / 'later', images)
    kinds = {'/camera/image_raw': IMAGE, '/camera/camera_info': CAMERA_INFO}
    extra = [
        (name, kinds[name], time_ns, data)
        for name, time_ns, data in messages_in(later, *kinds)
        if time_ns >= START_NS + 12 * STEP_NS
    ]
    both = write_bag(tmp_path / 'both', images[:5], extra=extra)
    annotate(both, tmp_path / 'results', AnnotateOptions(), Approaching(), lambda message: None)
    (observations,) = read_observations(tmp_path / 'results', print)
    ((start_s, length_s),) = observations.gaps()
    assert (start_s, length_s) == (pytest.approx(0.4, abs=1e-6), pytest.approx(0.8, abs=1e-6))


def test_the_page_is_self_contained_and_lists_minimum_distances(tmp_path, images, capsys):
    results = results_of(tmp_path, images)
    assert cli.main(['report', str(results)]) == 0
    page = (results / 'report.html').read_text()
    assert not re.search(r'(src|href)="(?!data:)|@import|url\(', page)
    assert '<td>1</td><td>4.10 m</td><td>1.9 s</td><td>1.' in page
    assert '<td>2</td><td>3.61 m</td>' in page
    pictures = re.findall(r'data:image/png;base64,([A-Za-z0-9+/=]+)', page)
    assert len(pictures) == 5
    for picture in pictures:
        image = cv2.imdecode(np.frombuffer(base64.b64decode(picture), np.uint8), cv2.IMREAD_COLOR)
        assert image.std() > 5
    assert 'report.html' in capsys.readouterr().out


def test_each_camera_has_a_section(tmp_path, images):
    topics = [
        RecordedTopic(f'/{side}/image_raw', f'{side}_frame', f'/{side}/camera_info')
        for side in ('left', 'right')
    ]
    results = results_of(tmp_path, images, topics)
    write_report(results, tmp_path / 'page.html', print)
    page = (tmp_path / 'page.html').read_text()
    assert '/left/pose/skeletons' in page
    assert '/right/pose/skeletons' in page


def test_reports_without_people_or_frames_are_written(tmp_path, images):
    bag = write_bag(tmp_path / 'bag', images)

    class NoPeople(KnownPeople):
        def poses_of(self, view, options):
            poses = super().poses_of(view, options)
            return poses.select(np.zeros(0, int))

    annotate(
        bag,
        tmp_path / 'no_people',
        AnnotateOptions(),
        NoPeople((0, 0, 3000)),
        lambda message: None,
    )
    write_report(tmp_path / 'no_people', tmp_path / 'no_people.html', print)
    assert '<b>0</b>person ids' in (tmp_path / 'no_people.html').read_text()
    empty = write_bag(tmp_path / 'empty', [])
    options = AnnotateOptions(fov_degrees=60.0)
    annotate(empty, tmp_path / 'nothing', options, NoPeople(), lambda message: None)
    write_report(tmp_path / 'nothing', tmp_path / 'nothing.html', print)
    assert 'There are no frames' in (tmp_path / 'nothing.html').read_text()


def test_warnings_of_annotate_are_on_the_page(tmp_path, images):
    topics = [RecordedTopic(), RecordedTopic('/other/image_raw', 'other', info=None)]
    results = results_of(tmp_path, images, topics)
    write_report(results, tmp_path / 'page.html', print)
    assert (
        '/other/image_raw is skipped: it has no CameraInfo' in (tmp_path / 'page.html').read_text()
    )


def test_a_bag_without_people_is_rejected_with_advice(tmp_path, images, capsys):
    bag = write_bag(tmp_path / 'bag', images)
    assert cli.main(['report', str(bag)]) == 1
    assert 'metrabs_ros annotate' in capsys.readouterr().err
