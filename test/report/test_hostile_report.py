"""Reports of untrusted bags skip invalid data and contain a warning."""

from __future__ import annotations

import dataclasses
import html
import os
import re

import numpy as np
import pytest
from known_people import KnownPeople
from recorded_bags import START_NS, STEP_NS, write_bag
from test_people import people_at

from metrabs_ros import cli
from metrabs_ros.conversions.people import to_message
from metrabs_ros.recordings.annotate import annotate
from metrabs_ros.recordings.options import AnnotateOptions
from metrabs_ros.recordings.typestore import SKELETONS, header_at, message_factory, message_types
from metrabs_ros.report.observations import read_observations
from metrabs_ros.report.page import write_report

TOPIC = '/camera/pose/skeletons'
FRAMES = 6


def frame(i, frame_id='camera_optical_frame', ids=(1, 2), **fields):
    """Return a SkeletonArray with changed fields in its first skeleton."""
    people = people_at((0, 0, 3000 + 100 * i), (700, 0, 4000))
    people = dataclasses.replace(people, ids=np.array(ids, np.int64))
    message = to_message(people, header_at(START_NS + i * STEP_NS, frame_id), message_types())
    first, *others = message.skeletons
    changed = {
        name: change(getattr(first, name)) if callable(change) else change
        for name, change in fields.items()
    }
    return dataclasses.replace(message, skeletons=[dataclasses.replace(first, **changed), *others])


def bag_of(folder, messages, topic=TOPIC):
    extra = [
        (topic, SKELETONS, START_NS + i * STEP_NS, message) for i, message in enumerate(messages)
    ]
    return write_bag(folder, [], [], extra=extra)


def with_value(value):
    """Return a function that replaces the first number of an array."""

    def change(array):
        changed = np.array(array, float)
        changed[0] = value
        return changed.astype(np.asarray(array).dtype)

    return change


def point(value):
    """Return a function that replaces the x coordinate of the first point."""

    def change(points):
        return [dataclasses.replace(points[0], x=value), *points[1:]]

    return change


def shorter(array):
    return array[:-3]


def longer(array):
    return [*array, *array[:2]] if isinstance(array, list) else np.concatenate([array, array[:2]])


def empty(array):
    return array[:0]


PER_JOINT = (
    *('positions', 'velocities', 'standard_deviations', 'confidences', 'image_points', 'in_view'),
    *('axis_standard_deviations', 'network_image_points'),
)
BROKEN = {
    **{f'{name} {how.__name__}': {name: how} for name in PER_JOINT for how in (shorter, longer)},
    **{f'{name} empty': {name: empty} for name in PER_JOINT},
    **{
        f'{name} {value}': {name: point(value)}
        for name in ('positions', 'velocities', 'axis_standard_deviations')
        for value in (np.nan, np.inf, -np.inf, 1e300)
    },
    **{f'{name} nan': {name: with_value(np.nan)} for name in PER_JOINT[2:4]},
    **{f'{name} inf': {name: with_value(np.inf)} for name in PER_JOINT[2:4]},
    'image_points nan': {'image_points': point(np.nan)},
    'negative deviations': {'standard_deviations': with_value(-1.0)},
    'negative axis deviations': {'axis_standard_deviations': point(-0.1)},
    **{f'confidence {value}': {'confidence': value} for value in (np.nan, np.inf, -1.0, 7.0)},
    **{f'box {value}': {'box_left': value} for value in (np.nan, np.inf, -np.inf)},
}


@pytest.mark.parametrize('name', BROKEN)
def test_invalid_skeletons_are_skipped_and_counted(tmp_path, name):
    messages = [frame(i) for i in range(FRAMES)]
    messages[2] = frame(2, **BROKEN[name])
    (observations,) = read_observations(bag_of(tmp_path / 'bag', messages), print)
    assert observations.people.tolist() == [2, 2, 1, 2, 2, 2]
    (warning,) = observations.warnings
    assert f'1 skeletons on {TOPIC} are not valid and were skipped' in warning
    for array in (observations.positions_m, observations.speeds_m_s, observations.deviations_m):
        assert np.isfinite(array).all()


def invalid_messages():
    """Return invalid messages by their names."""
    usual = frame(1)
    return {
        'no joints': dataclasses.replace(usual, joint_names=[]),
        'odd edges': dataclasses.replace(usual, joint_edges=np.array([0, 1, 2], np.uint16)),
        'edges beyond': dataclasses.replace(usual, joint_edges=np.array([0, 65535], np.uint16)),
        'many joints': dataclasses.replace(usual, joint_names=['a'] * 5000),
        'negative stamp': dataclasses.replace(usual, header=header_at(-5, 'a')),
        'not a message': b'\x00\x01\x00\x00nothing of the kind',
        'empty': b'',
    }


@pytest.mark.slow
@pytest.mark.parametrize('name', invalid_messages())
def test_invalid_messages_are_skipped_and_counted(tmp_path, name):
    messages = [frame(0), invalid_messages()[name], frame(2)]
    bag = bag_of(tmp_path / 'bag', messages)
    (observations,) = read_observations(bag, print)
    assert len(observations.stamps_s) == 2
    assert f'1 messages on {TOPIC} are not valid and were skipped' in observations.warnings[0]
    write_report(bag, tmp_path / 'page.html', print)
    assert 'are not valid and were skipped' in (tmp_path / 'page.html').read_text()


@pytest.mark.parametrize('name', ['positions nan', 'confidences shorter', 'box inf'])
def test_a_report_without_valid_people_is_written(tmp_path, capfd, name):
    broken = dataclasses.replace(frame(0, **BROKEN[name]))
    only = dataclasses.replace(broken, skeletons=broken.skeletons[:1])
    bag = bag_of(tmp_path / 'bag', [only] * 3)
    assert cli.main(['report', str(bag), '-o', str(tmp_path / 'page.html')]) == 0
    assert '3 skeletons' in (tmp_path / 'page.html').read_text()
    assert 'Traceback' not in capfd.readouterr().err


HOSTILE = '<script>alert("x")</script>\x1b[31m\n\u202e & $\\frac{$'


def test_texts_of_a_bag_are_escaped_and_truncated(tmp_path):
    message = frame(0, frame_id=HOSTILE + 'f' * 10_000)
    joints = [f'{HOSTILE}{i}' for i in range(len(message.joint_names))]
    messages = [dataclasses.replace(message, joint_names=joints)] * 3
    broken = dataclasses.replace(messages[0], joint_edges=np.array([0], np.uint16))
    bag = bag_of(tmp_path / 'bag', [*messages, broken], topic=f'/{HOSTILE}'.replace('\0', ''))
    write_report(bag, tmp_path / 'page.html', print)
    page = (tmp_path / 'page.html').read_text()
    assert '<script' not in page
    assert '\x1b' not in page
    assert '\u202e' not in page
    assert html.escape('<script>alert("x")</script>') in page
    without_pictures = re.sub(r'base64,[^"]*', '', page)
    assert len(without_pictures) < 20_000


def test_warnings_in_the_metadata_are_escaped_and_limited(tmp_path):
    bag = write_bag(tmp_path / 'in', [np.zeros((20, 30, 3), np.uint8)])
    results = tmp_path / 'results'
    annotate(bag, results, AnnotateOptions(), KnownPeople((0, 0, 3000)), print)
    metadata = results / 'metadata.yaml'
    about = (
        '{"warnings": ["<script>", 5, '
        + '"x", ' * 1000
        + '"y"], "unusable": {"<b>": [1, 2], "c": 3}}'
    )
    text = re.sub(r'metrabs_ros: .*(\n    .*)*', f"metrabs_ros: '{about}'", metadata.read_text())
    metadata.write_text(text)
    (observations,) = read_observations(results, print)
    assert observations.warnings[0] == '<script>'
    assert len(observations.warnings) <= 50
    # The name of the field in earlier versions.
    metadata.write_text(text.replace('"warnings"', '"remarks"'))
    assert read_observations(results, print)[0].warnings == observations.warnings
    write_report(results, tmp_path / 'page.html', print)
    assert '<script>' not in (tmp_path / 'page.html').read_text()


@pytest.mark.slow
def test_the_number_of_drawn_people_and_gaps_is_limited(tmp_path):
    messages = [frame(i if i % 2 else 8 * i, ids=(2 * i, 2 * i + 1)) for i in range(800)]
    bag = bag_of(tmp_path / 'bag', messages)
    write_report(bag, tmp_path / 'page.html', print)
    assert '1400 more people' in (tmp_path / 'page.html').read_text()


def test_large_and_decreasing_stamps_are_drawn(tmp_path):
    stamps_ns = [0, 2**31 * 10**9 - 1, 5, 10**9, 3]
    messages = [
        dataclasses.replace(frame(0), header=header_at(stamp_ns, '')) for stamp_ns in stamps_ns
    ]
    write_report(bag_of(tmp_path / 'bag', messages), tmp_path / 'page.html', print)
    assert (tmp_path / 'page.html').exists()


def test_deviations_of_different_joints_are_not_averaged(tmp_path):
    usual = frame(0)
    fewer = [
        dataclasses.replace(skeleton, **{name: getattr(skeleton, name)[:17] for name in PER_JOINT})
        for skeleton in usual.skeletons
    ]
    other = dataclasses.replace(
        usual,
        joint_names=usual.joint_names[:17],
        joint_edges=np.array([0, 1], np.uint16),
        skeletons=fewer,
    )
    (observations,) = read_observations(
        bag_of(tmp_path / 'bag', [usual, other, usual, other]), print
    )
    assert len(observations.joint_names) == len(observations.deviations_m) == 17
    np.testing.assert_allclose(
        observations.deviations_m,
        np.mean([skeleton.standard_deviations for skeleton in fewer], axis=0),
        rtol=1e-5,
    )


def test_the_number_of_reported_topics_is_limited(tmp_path):
    extra = [(f'/c{i}/pose/skeletons', SKELETONS, START_NS, frame(0)) for i in range(25)]
    bag = write_bag(tmp_path / 'bag', [], [], extra=extra)
    warnings = []
    assert len(read_observations(bag, warnings.append)) == 20
    assert '25 topics' in warnings[0]


@pytest.fixture
def bag(tmp_path):
    return bag_of(tmp_path / 'bag', [frame(i) for i in range(3)])


@pytest.mark.slow
def test_a_report_replaces_only_reports(tmp_path, bag, capfd):
    page, notes = tmp_path / 'page.html', tmp_path / 'notes.html'
    for _ in range(2):
        assert cli.main(['report', str(bag), '-o', str(page)]) == 0
    notes.write_text('<html>mine</html>')
    link = tmp_path / 'link.html'
    link.symlink_to(bag / 'bag.mcap')
    before = {file: file.read_bytes() for file in (notes, bag / 'bag.mcap', bag / 'metadata.yaml')}
    capfd.readouterr()
    for target in (
        notes,
        link,
        bag,
        bag / 'bag.mcap',
        bag / 'metadata.yaml',
        tmp_path,
        notes / 'page.html',
        '/dev/full',
        '/proc/page.html',
    ):
        assert cli.main(['report', str(bag), '-o', str(target)]) == 1, target
        captured = capfd.readouterr().err
        assert captured.count('\n') == 1, captured
        assert 'Errno' not in captured
    assert all(file.read_bytes() == data for file, data in before.items())
    assert link.is_symlink()
    assert cli.main(['report', str(bag), '-o', '/dev/null']) == 0
    # The default report of a single file does not replace other pages, either.
    alone = tmp_path / 'notes.mcap'
    (bag / 'bag.mcap').rename(alone)
    assert cli.main(['report', str(alone)]) == 1
    assert 'is not a report' in capfd.readouterr().err


def test_a_report_has_default_file_permissions(tmp_path, bag):
    umask = os.umask(0o022)
    try:
        write_report(bag, tmp_path / 'page.html', print)
    finally:
        os.umask(umask)
    assert (tmp_path / 'page.html').stat().st_mode & 0o777 == 0o644
    assert [file.name for file in tmp_path.iterdir() if file.suffix == '.unfinished'] == []


def test_topics_of_other_types_are_ignored(tmp_path, capfd):
    text = message_factory('std_msgs/msg/String')(data='hello')
    bag = write_bag(
        tmp_path / 'bag', [], [], extra=[(TOPIC, 'std_msgs/msg/String', START_NS, text)]
    )
    assert cli.main(['report', str(bag)]) == 1
    assert 'has no skeletons' in capfd.readouterr().err
