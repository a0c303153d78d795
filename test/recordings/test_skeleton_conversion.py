"""Conversion of recorded bags and tables to another skeleton."""

from __future__ import annotations

import csv
import dataclasses
import os
import stat

import numpy as np
import pyarrow.parquet
import pytest
from known_people import KnownPeople
from recorded_bags import START_NS, header, messages_in, people_in, write_bag
from rosbags.highlevel import AnyReader
from test_people import people_at

from metrabs_ros.camera import Camera
from metrabs_ros.cli import main
from metrabs_ros.conversions.people import to_message
from metrabs_ros.recordings import skeleton_converter
from metrabs_ros.recordings.annotate import annotate
from metrabs_ros.recordings.input_files import UnusableFile
from metrabs_ros.recordings.options import AnnotateOptions
from metrabs_ros.recordings.output_files import UnusableOutput
from metrabs_ros.recordings.skeleton_conversion import convert_skeletons
from metrabs_ros.recordings.skeleton_converter import ConversionSummary, SkeletonConverter
from metrabs_ros.recordings.typestore import MARKERS, SKELETONS, message_types
from metrabs_ros.skeletons.builtin import DEFINITIONS
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, COCO_17, Skeleton
from metrabs_ros.skeletons.definition_file import read_definitions, write_definitions

FRAMES = 3
SMPL = DEFINITIONS['smpl_24'].within({'': BLAZEPOSE_33.within(BLAZEPOSE_33)})


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    """Return results of annotate, with tables, of a bag with two people."""
    folder = tmp_path_factory.mktemp('results')
    images = [np.zeros((120, 160, 3), np.uint8)] * FRAMES
    write_bag(folder / 'bag', images)
    model = KnownPeople((0, 0, 4000), (800, 0, 5000))
    options = AnnotateOptions(csv='', parquet='', fov_degrees=60)
    annotate(folder / 'bag', folder / 'out', options, model, print)
    return folder / 'out'


def convert(source, output, name='smpl_24', overwrite=False, definitions=()):
    converter = SkeletonConverter(name, definitions)
    return convert_skeletons(source, output, converter, overwrite, pytest.fail)


def rows_of(file):
    with file.open() as opened:
        return list(csv.DictReader(opened))


def test_a_bag_has_the_new_joints_and_all_other_messages(results, tmp_path):
    summary = convert(results, tmp_path / 'converted')
    assert summary.people == 2 * FRAMES
    assert not summary.skipped
    frames = people_in(results), people_in(tmp_path / 'converted')
    for (before_ns, before), (after_ns, people) in zip(*frames, strict=True):
        assert before_ns == after_ns
        assert people.skeleton == SMPL.skeleton
        expected = before.in_convention(SMPL)
        for field in ('poses3d_mm', 'poses2d_px', 'joint_std_mm', 'axis_std_mm', 'ids', 'in_view'):
            np.testing.assert_allclose(
                getattr(people, field), getattr(expected, field), atol=1e-2, err_msg=field
            )
        assert people.finite().all()
    names = ('/camera/image_raw', '/camera/camera_info', '/tf')
    before, after = (messages_in(own, *names) for own in (results, tmp_path / 'converted'))
    assert before == after


def test_markers_show_the_new_bones_and_the_same_labels(results, tmp_path):
    convert(results, tmp_path / 'converted')
    markers = []
    for folder in (results, tmp_path / 'converted'):
        with AnyReader([folder]) as reader:
            own = [c for c in reader.connections if c.msgtype == MARKERS]
            markers.append(
                [reader.deserialize(data, MARKERS) for _, _, data in reader.messages(own)]
            )
    for before, after in zip(*markers, strict=True):
        by_name = [{(m.ns, m.id): m for m in own.markers} for own in (before, after)]
        assert by_name[0].keys() == by_name[1].keys()
        for key, marker in by_name[1].items():
            if key[0] == 'text':
                assert marker.text == by_name[0][key].text != ''
            else:
                count = {'joints': 24, 'bones': 2 * len(SMPL.skeleton.edges)}[key[0]]
                assert len(marker.points) == count


@pytest.mark.parametrize('kind', ['csv', 'parquet'])
def test_tables_have_the_rows_of_the_new_joints(results, tmp_path, kind):
    output = tmp_path / f'new.{kind}'
    summary = convert(results / f'joints.{kind}', output)
    assert summary.people == 2 * FRAMES
    if kind == 'csv':
        before, after = rows_of(results / 'joints.csv'), rows_of(output)
    else:
        before, after = (
            pyarrow.parquet.read_table(file).to_pylist()
            for file in (results / 'joints.parquet', output)
        )
    assert len(after) == 2 * FRAMES * 24
    assert list(after[0]) == list(before[0])
    (first,) = {row['id'] for row in after[:24]}
    (stamp,) = {row['stamp'] for row in after[:24]}
    own = [row for row in before if (row['id'], row['stamp']) == (first, stamp)]
    position = np.array([[float(row[axis]) for axis in 'xyz'] for row in own])
    converted = np.array([[float(row[axis]) for axis in 'xyz'] for row in after[:24]])
    np.testing.assert_allclose(converted, SMPL.positions(position), atol=2e-6)
    deviation = np.array([float(row['deviation']) for row in own])
    np.testing.assert_allclose(
        [float(row['deviation']) for row in after[:24]],
        SMPL.deviations(1000 * deviation) / 1000,
        atol=2e-6,
    )
    assert [row['joint'] for row in after[:24]] == list(SMPL.skeleton.joint_names)


def test_a_definition_of_a_user_is_used(results, tmp_path):
    file = tmp_path / 'own.json'
    file.write_text(
        '{"skeletons": [{"name": "hands_1", "source": "smpl_24", "joints": '
        '{"middle": {"left_hand": 0.5, "right_hand": 0.5}}}]}'
    )
    definitions = read_definitions(file)
    convert(results / 'joints.csv', tmp_path / 'a.csv', 'hands_1', definitions=definitions)
    assert [row['joint'] for row in rows_of(tmp_path / 'a.csv')] == ['middle'] * 2 * FRAMES
    write_definitions(file, [DEFINITIONS['coco_17']])
    with pytest.raises(ValueError, match="skeleton 'coco_17' exists already"):
        SkeletonConverter('coco_17', read_definitions(file))


def test_an_unknown_skeleton_and_missing_joints_are_named(results, tmp_path):
    with pytest.raises(ValueError, match="skeleton is 'octopus_8'; it must be one of blazepose"):
        SkeletonConverter('octopus_8', [])
    convert(results, tmp_path / 'smpl')
    with pytest.raises(UnusableFile, match='has no people that can be converted: 3 messages: '):
        convert(tmp_path / 'smpl', tmp_path / 'back', 'blazepose_33')
    assert not (tmp_path / 'back').exists()
    assert not list(tmp_path.glob('*.unfinished*'))


def test_existing_outputs_and_inputs_are_not_replaced(results, tmp_path):
    convert(results, tmp_path / 'converted')
    with pytest.raises(FileExistsError, match='already exists; use --overwrite'):
        convert(results, tmp_path / 'converted')
    convert(results, tmp_path / 'converted', 'h36m_17', overwrite=True)
    assert people_in(tmp_path / 'converted')[0][1].skeleton.name == 'h36m_17'
    with pytest.raises(UnusableOutput, match='is the input'):
        convert(results, results, overwrite=True)
    table = tmp_path / 'a.csv'
    table.write_text('my notes\n')
    with pytest.raises(UnusableOutput, match='is not a table of joints and is not replaced'):
        convert(results / 'joints.csv', table, overwrite=True)
    assert table.read_text() == 'my notes\n'
    with pytest.raises(UnusableOutput, match=r'must end in \.csv'):
        convert(results / 'joints.csv', tmp_path / 'a.parquet')
    os.mkfifo(tmp_path / 'pipe.csv')
    with pytest.raises(UnusableOutput, match='is a device or a pipe'):
        convert(results / 'joints.csv', tmp_path / 'pipe.csv')
    assert stat.S_ISFIFO(os.stat(tmp_path / 'pipe.csv').st_mode)
    assert sorted(file.name for file in tmp_path.iterdir()) == ['a.csv', 'converted', 'pipe.csv']


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'is not a table of joints: its columns are ; expected: stamp, id'),
        ('a,b\n1,2\n', 'its columns are a, b; expected'),
        ('\0\xff', 'is not a table of joints'),
        ('x' * 100_000, 'is not a table of joints'),
    ],
)
def test_other_files_are_not_tables(tmp_path, text, message):
    for kind in ('csv', 'parquet'):
        file = tmp_path / f'a.{kind}'
        file.write_text(text, encoding='latin1')
        with pytest.raises(UnusableFile, match=message if kind == 'csv' else 'cannot be read'):
            convert(file, tmp_path / f'b.{kind}')


def test_damaged_rows_are_counted(results, tmp_path):
    lines = (results / 'joints.csv').read_text().splitlines(keepends=True)
    names = [line.split(',')[2].strip() for line in lines]
    cut = names.index('left_hip', 100)
    lines[cut] = lines[cut].replace(',left_hip,', ',left_hip,x')
    lines.insert(300, 'garbage\n')
    (tmp_path / 'a.csv').write_text(''.join(lines))
    summary = convert(tmp_path / 'a.csv', tmp_path / 'b.csv')
    assert summary.people == 2 * FRAMES - 1
    assert summary.skipped['rows: a value is missing or not a number'] == 2
    assert sum('left_hip' in reason for reason in summary.skipped) == 1


def test_a_quote_that_is_not_closed_is_counted(results, tmp_path):
    lines = (results / 'joints.csv').read_text().splitlines(keepends=True)
    (tmp_path / 'a.csv').write_text(''.join([*lines, '"', 'x' * 9000, '\n', *lines[1:] * 20]))
    summary = convert(tmp_path / 'a.csv', tmp_path / 'b.csv')
    assert summary.people >= 2 * FRAMES
    assert sum('field larger than field limit' in reason for reason in summary.skipped) == 1


def test_the_memory_for_skeletons_and_reasons_is_bounded():
    converter = SkeletonConverter('coco_17', [])
    summary = ConversionSummary()
    for i in range(3 * skeleton_converter.MAX_CONVENTIONS):
        names = (*BLAZEPOSE_33.joint_names, f'joint_{i}')
        convention = converter.convention(Skeleton(f'skeleton_{i}', names, ()))
        assert convention.skeleton == COCO_17
        summary.skip(f'messages: joint_{i} is wrong', 2)
    assert len(converter._conventions) <= skeleton_converter.MAX_CONVENTIONS
    assert len(summary.skipped) <= skeleton_converter.MAX_REASONS + 1
    assert summary.skipped.total() == 6 * skeleton_converter.MAX_CONVENTIONS


def write_people(folder, people, frame_id):
    """Write a bag with one SkeletonArray."""
    message = to_message(people, header(0, frame_id), message_types())
    return write_bag(folder, [], extra=[('/pose/skeletons', SKELETONS, START_NS, message)])


def test_image_points_are_right_in_any_frame(tmp_path):
    camera = Camera([[900, 0, 640], [0, 900, 480], [0, 0, 1]])
    people = people_at((0, 0, 2000), (700, 100, 4000))
    offsets_mm = np.random.default_rng(0).normal(0, 60, people.poses3d_mm.shape)
    people = dataclasses.replace(people, poses3d_mm=people.poses3d_mm + offsets_mm)
    people = dataclasses.replace(people, poses2d_px=camera.project(people.poses3d_mm))
    # A frame with z up, as target_frame of the pose node.
    rotation = np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])
    turned = people.transformed(rotation, np.array([200.0, 0, 1500]))
    summary = convert(write_people(tmp_path / 'bag', turned, 'map'), tmp_path / 'smpl')
    assert (summary.people, summary.approximate) == (2, 0)
    ((_, converted),) = people_in(tmp_path / 'smpl', '/pose/skeletons')
    np.testing.assert_allclose(
        converted.poses2d_px, camera.project(SMPL.positions(people.poses3d_mm)), atol=0.01
    )


def test_people_whose_image_points_are_not_projections_are_counted(tmp_path, capsys):
    people = people_at((0, 0, 2000), (700, 100, 4000))
    points_px = np.random.default_rng(0).uniform(0, 1000, people.poses2d_px.shape)
    people = dataclasses.replace(people, poses2d_px=points_px)
    summary = convert(write_people(tmp_path / 'bag', people, 'map'), tmp_path / 'smpl')
    assert (summary.people, summary.approximate) == (2, 2)
    ((_, converted),) = people_in(tmp_path / 'smpl', '/pose/skeletons')
    np.testing.assert_allclose(converted.poses2d_px, SMPL.positions(points_px), atol=1e-2)
    arguments = ['convert-skeleton', str(tmp_path / 'bag'), '-o', str(tmp_path / 'again')]
    assert main([*arguments, '--skeleton', 'smpl_24']) == 0
    assert '2 people have approximate image points: ' in capsys.readouterr().err
    # Fused people have no image points.
    fused = dataclasses.replace(people, poses2d_px=np.zeros_like(points_px))
    summary = convert(write_people(tmp_path / 'fused', fused, 'map'), tmp_path / 'fused_smpl')
    assert (summary.people, summary.approximate) == (2, 0)
    ((_, converted),) = people_in(tmp_path / 'fused_smpl', '/pose/skeletons')
    assert not converted.poses2d_px.any()
