"""Results of annotate are shown with their images, each at its time."""

from __future__ import annotations

import collections
import re
import subprocess
import sys

import numpy as np
import pytest
from known_people import KnownPeople
from recorded_bags import RecordedTopic, write_bag

from metrabs_ros.recordings.annotate import annotate
from metrabs_ros.recordings.bags import UnreadableRecording
from metrabs_ros.recordings.wanted import Wanted
from metrabs_ros.view.recorded import Results
from metrabs_ros.view.scene import Scene

FRAMES = 4


@pytest.fixture
def images():
    return [np.full((120, 160, 3), 60 * i, np.uint8) for i in range(FRAMES)]


def shown(results, folder):
    """Return how often each thing was shown, and all of it as text."""
    recorded = Results(results, print)
    scene = Scene(recorded.cameras)
    scene.save(str(folder / 'scene.rrd'))
    recorded.show_in(scene)
    recorded.close()
    del scene
    text = subprocess.run(
        [sys.executable, '-m', 'rerun', 'rrd', 'print', '-vvv', str(folder / 'scene.rrd')],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    summary = subprocess.run(
        [sys.executable, '-m', 'rerun', 'rrd', 'print', str(folder / 'scene.rrd')],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rows = collections.Counter()
    for count, entity in re.findall(r'with (\d+) rows .*? - (/\S+) -', summary):
        rows[entity] += int(count)
    return rows, text


def results_of(tmp_path, images, topics, **wanted):
    bag = write_bag(tmp_path / 'bag', images, topics)
    model = KnownPeople((0, 0, 3000), (500, 0, 4000))
    annotate(bag, tmp_path / 'results', Wanted(**wanted), model, lambda sentence: None)
    return tmp_path / 'results'


def test_people_and_images_are_shown_frame_for_frame(tmp_path, images):
    rows, text = shown(results_of(tmp_path, images, [RecordedTopic()]), tmp_path)
    for entity in ('people/joints', 'people/bones', 'people/trails', 'camera/image/boxes'):
        assert rows[f'/world/camera/{entity}'] == FRAMES
    # The image and the lens it was taken through.
    assert rows['/world/camera/camera/image'] == 2 * FRAMES
    assert rows['/plots/people/people'] == FRAMES + 1
    assert '1: 3.0 m, 0.0 m/s' in text
    assert 'image/jpeg' in text


def test_each_camera_has_its_place(tmp_path, images):
    topics = [
        RecordedTopic(f'/{side}/image_raw', f'{side}_frame', f'/{side}/camera_info')
        for side in ('left', 'right')
    ]
    rows, _ = shown(results_of(tmp_path, images, topics), tmp_path)
    for side in ('left', 'right'):
        assert rows[f'/world/{side}/people/joints'] == FRAMES
        assert rows[f'/world/{side}/camera/image'] == 2 * FRAMES


def test_people_are_shown_without_images_too(tmp_path, images):
    results = results_of(tmp_path, images, [RecordedTopic()], only_results=True)
    rows, _ = shown(results, tmp_path)
    assert rows['/world/camera/people/joints'] == FRAMES
    assert rows['/world/camera/camera/image'] == 0


def test_a_bag_without_people_says_how_to_find_them(tmp_path, images):
    with pytest.raises(UnreadableRecording, match='metrabs_ros annotate'):
        Results(write_bag(tmp_path / 'bag', images), print)
