"""Results of annotate are displayed with their images, by stamp."""

from __future__ import annotations

import collections
import re
import subprocess
import sys

import numpy as np
import pytest
from known_people import KnownPeople
from recorded_bags import START_NS, RecordedTopic, header, write_bag
from test_people import people_at

from metrabs_ros.conversions.people import to_message
from metrabs_ros.recordings.annotate import annotate
from metrabs_ros.recordings.bags import UnreadableRecording
from metrabs_ros.recordings.options import AnnotateOptions
from metrabs_ros.recordings.typestore import (
    COMPRESSED_IMAGE,
    SKELETONS,
    message_factory,
    message_types,
)
from metrabs_ros.view.results import MAX_CAMERAS, Results
from metrabs_ros.view.scene import Scene

FRAMES = 4


@pytest.fixture
def images():
    return [np.full((120, 160, 3), 60 * i, np.uint8) for i in range(FRAMES)]


def shown(results, folder):
    """Return the number of rows of each entity, and the printed recording."""
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
    rows = collections.Counter()
    for count, entity in re.findall(r'with (\d+) rows .*? - (/\S+) -', text):
        rows[entity] += int(count)
    return rows, text


def results_of(tmp_path, images, topics, **options):
    bag = write_bag(tmp_path / 'bag', images, topics)
    model = KnownPeople((0, 0, 3000), (500, 0, 4000))
    annotate(bag, tmp_path / 'results', AnnotateOptions(**options), model, lambda message: None)
    return tmp_path / 'results'


def test_people_and_images_are_displayed_frame_by_frame(tmp_path, images):
    rows, text = shown(results_of(tmp_path, images, [RecordedTopic()]), tmp_path)
    for entity in ('people/joints', 'people/bones', 'people/trails', 'camera/image/boxes'):
        assert rows[f'/world/camera/{entity}'] == FRAMES
    # The image and the pinhole model.
    assert rows['/world/camera/camera/image'] == 2 * FRAMES
    assert rows['/plots/people/people'] == FRAMES + 1
    assert '1: 3.0 m, 0.0 m/s' in text
    assert 'image/jpeg' in text


def test_each_camera_has_its_own_entities(tmp_path, images):
    topics = [
        RecordedTopic(f'/{side}/image_raw', f'{side}_frame', f'/{side}/camera_info')
        for side in ('left', 'right')
    ]
    rows, _ = shown(results_of(tmp_path, images, topics), tmp_path)
    for side in ('left', 'right'):
        assert rows[f'/world/{side}/people/joints'] == FRAMES
        assert rows[f'/world/{side}/camera/image'] == 2 * FRAMES


def test_people_are_displayed_without_images(tmp_path, images):
    results = results_of(tmp_path, images, [RecordedTopic()], only_results=True)
    rows, _ = shown(results, tmp_path)
    assert rows['/world/camera/people/joints'] == FRAMES
    assert rows['/world/camera/camera/image'] == 0


def test_a_bag_without_people_is_rejected_with_advice(tmp_path, images):
    with pytest.raises(UnreadableRecording, match='metrabs_ros annotate'):
        Results(write_bag(tmp_path / 'bag', images), print)


def skeletons_message(i, **changes):
    """Return a SkeletonArray of one person, with changed fields of the message or the person."""
    message = to_message(people_at((0, 0, 3000)), header(i), message_types())
    for name, value in changes.items():
        setattr(message if hasattr(message, name) else message.skeletons[0], name, value)
    return message


def test_malformed_messages_are_skipped_and_counted(tmp_path, images, capsys):
    nan = float('nan')
    point = message_types().Point
    whole = skeletons_message(0)
    joints = len(whole.joint_names)
    malformed = [
        b'\x00\x01\x00\x00' + b'\xff' * 100,
        b'',
        skeletons_message(3, joint_edges=np.array([0, 60000], np.uint16)),
        skeletons_message(4, joint_names=[]),
    ]
    without_valid_people = [
        skeletons_message(1, positions=[]),
        skeletons_message(2, positions=whole.skeletons[0].positions[:5]),
        skeletons_message(5, positions=[point(x=nan, y=nan, z=nan)] * joints),
        skeletons_message(6, positions=[point(x=1e308, y=0.0, z=0.0)] * joints),
    ]
    topic = '/camera/pose/skeletons'
    extra = [
        (topic, SKELETONS, START_NS + i, message)
        for i, message in enumerate([*malformed, *without_valid_people, whole])
    ]
    rows, _ = shown(write_bag(tmp_path / 'bag', images, extra=extra), tmp_path)
    assert rows['/world/camera/people/joints'] == len(without_valid_people) + 1
    assert rows['/world/camera/camera/image'] == 2 * FRAMES
    captured = capsys.readouterr().out
    assert f'{len(malformed)} messages with people are malformed and were skipped' in captured
    assert f'{len(without_valid_people)} people are malformed and were skipped' in captured
    assert len(captured) < 2000


def test_topic_names_are_escaped_and_truncated(tmp_path, images):
    odd = ['../../x', '<b>', '[a](b)', 'tf', '\x1b[31m', 'x' * 500, 'a|b\n', 'plots']
    names = [*odd, *(f'camera_{i}' for i in range(100))]
    extra = [
        (f'/{name}/pose/skeletons', SKELETONS, START_NS + i, skeletons_message(i))
        for i, name in enumerate(names)
    ]
    bag = write_bag(tmp_path / '![x](y) <b>', images, extra=extra)
    rows, text = shown(bag, tmp_path)
    people = [entity for entity in rows if entity.endswith('/people/joints')]
    assert len(people) == MAX_CAMERAS
    assert all(re.fullmatch(r'[\w/]{1,120}', entity) for entity in people)
    assert '/world/tf/people/joints' not in people
    assert '![x]' not in text
    assert '&#33;&#91;x&#93;(y)' in text


def test_an_image_with_a_huge_declared_size_is_skipped(tmp_path, images):
    claims = b'\xff\xd8\xff\xc0\x00\x11\x08' + b'\x75\x30\x75\x30' + bytes(20)
    bomb = message_factory(COMPRESSED_IMAGE)(
        header=header(1), format='jpeg', data=np.frombuffer(claims, np.uint8)
    )
    topic = RecordedTopic('/camera/image_raw/compressed', quality='.jpg')
    extra = [
        (topic.name, COMPRESSED_IMAGE, START_NS + 1, bomb),
        ('/camera/pose/skeletons', SKELETONS, START_NS, skeletons_message(0)),
    ]
    rows, _ = shown(write_bag(tmp_path / 'bag', images, [topic], extra=extra), tmp_path)
    assert rows['/world/camera/camera/image'] == 2 * FRAMES
