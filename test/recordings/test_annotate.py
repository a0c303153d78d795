"""Annotation of recordings of all supported formats."""

from __future__ import annotations

import collections
import csv
import dataclasses
import errno
import fcntl
import os
import pathlib
import shutil

import cv2
import numpy as np
import pyarrow.parquet
import pytest
from known_people import KnownPeople
from mcap.reader import make_reader
from recorded_bags import (
    FOCAL_PX,
    SQLITE,
    START_NS,
    STEP_NS,
    RecordedTopic,
    header,
    messages_in,
    people_in,
    write_bag,
    write_ros1_bag,
    write_split_bag,
)
from rosbags import rosbag1
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import CompressionMode

import metrabs_ros
from metrabs_ros.recordings.annotate import UNFINISHED, annotate
from metrabs_ros.recordings.bags import Bag, UnreadableRecording
from metrabs_ros.recordings.options import AnnotateOptions
from metrabs_ros.recordings.tables import COLUMNS
from metrabs_ros.recordings.typestore import (
    COMPRESSED_IMAGE,
    IMAGE,
    MARKERS,
    SKELETONS,
    TRANSFORMS,
    message_factory,
    typestore,
)
from metrabs_ros.skeletons.builtin import DEFINITIONS
from metrabs_ros.skeletons.definition_file import write_definitions

FORMATS = {
    'mcap': lambda path, images: write_bag(path, images),
    'mcap in compressed chunks': lambda path, images: write_bag(
        path, images, compression=CompressionMode.STORAGE
    ),
    'sqlite3': lambda path, images: write_bag(path, images, plugin=SQLITE),
    'sqlite3 of compressed messages': lambda path, images: write_bag(
        path, images, plugin=SQLITE, compression=CompressionMode.MESSAGE
    ),
    'a compressed file': lambda path, images: write_bag(
        path, images, compression=CompressionMode.FILE
    ),
    'split': write_split_bag,
    'ROS 1': lambda path, images: write_ros1_bag(path.with_suffix('.bag'), images),
    'ROS 1, compressed': lambda path, images: write_ros1_bag(
        path.with_suffix('.bag'), images, compression=rosbag1.Writer.CompressionFormat.LZ4
    ),
}
"""Functions that write a bag of each format."""
WHOLE_FILES = ('mcap', 'mcap in compressed chunks', 'sqlite3', 'ROS 1', 'ROS 1, compressed')
FRAMES = 6
STAMPS = [START_NS + i * STEP_NS for i in range(FRAMES)]


@pytest.fixture
def images():
    """Return noise images, BGR."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (120, 160, 3), np.uint8) for _ in range(FRAMES)]


@pytest.fixture
def model():
    """Return a model that detects the same two people in each image."""
    return KnownPeople((0, 0, 3000), (500, 0, 4000))


def run(source, model, output=None, **options):
    """Annotate; return the summary and the folder of the results."""
    output = output or source.parent / 'results'
    summary = annotate(source, output, AnnotateOptions(**options), model, lambda message: None)
    return summary, output


@pytest.mark.parametrize('kind', FORMATS)
def test_bags_of_all_formats_are_annotated_frame_by_frame(tmp_path, images, model, kind):
    source = FORMATS[kind](tmp_path / 'bag', images)
    summary, output = run(source, model)
    assert (summary.frames, summary.processed, summary.warnings) == (FRAMES, FRAMES, [])
    found = people_in(output)
    assert [stamp for stamp, _ in found] == STAMPS
    for _, people in found:
        np.testing.assert_allclose(people.positions_mm, model.places_mm, atol=1e-3)
    assert set(messages_in(source)) <= set(messages_in(output))
    assert len(messages_in(output, '/chatter')) == FRAMES
    with AnyReader([output]) as reader:
        for connection, _, data in reader.messages():
            reader.deserialize(data, connection.msgtype)


def test_results_can_be_read_with_the_definitions_in_them(tmp_path, images, model):
    extra = [('/odd', 'odd_msgs/msg/Odd', START_NS, b'\x00\x01\x00\x00\x07\x00\x00\x00')]
    for name, definition in (('known', 'int32 number\n'), ('unknown', ''), ('nonsense', '?! 7')):
        source = write_bag(
            tmp_path / name, images, extra=extra, definitions={'odd_msgs/msg/Odd': definition}
        )
        _, output = run(source, model, tmp_path / f'{name}_people')
        with AnyReader([output]) as reader:
            counts = collections.Counter()
            for connection, _, data in reader.messages():
                counts[connection.topic] += 1
                if connection.topic != '/odd' or name == 'known':
                    message = reader.deserialize(data, connection.msgtype)
        assert counts['/odd'] == 1
        assert counts['/camera/pose/skeletons'] == counts['/camera/image_raw'] == FRAMES
        with open(output / f'{output.name}.mcap', 'rb') as file:
            summary = make_reader(file).get_summary()
        assert summary.statistics.message_count == sum(counts.values())
        assert message is not None


def test_results_are_mcap_files_with_message_definitions(tmp_path, images, model):
    _, output = run(write_bag(tmp_path / 'bag', images, plugin=SQLITE), model)
    assert (output / 'metadata.yaml').exists()
    bag = Bag(output / f'{output.name}.mcap', print)
    types = {topic.name: topic for topic in bag.counts}
    assert types['/camera/pose/skeletons'].msgtype == SKELETONS
    assert types['/camera/pose/markers'].msgtype == MARKERS
    assert types['/tf'].msgtype == TRANSFORMS
    definition = types['/camera/pose/skeletons'].definition
    assert 'MSG: metrabs_ros/Skeleton' in definition
    assert 'float32[] standard_deviations' in definition
    assert all(topic.definition for topic in bag.counts)
    bag.close()


def test_markers_and_transforms_have_the_stamps_of_the_images(tmp_path, images, model):
    _, output = run(write_bag(tmp_path / 'bag', images), model)
    for name, msgtype in (('/camera/pose/markers', MARKERS), ('/tf', TRANSFORMS)):
        stamps = set()
        for _, time_ns, data in messages_in(output, name):
            message = typestore().deserialize_cdr(data, msgtype)
            for part in message.markers if msgtype == MARKERS else message.transforms:
                stamp = part.header.stamp
                stamps.add(stamp.sec * 10**9 + stamp.nanosec)
                assert time_ns in STAMPS
        assert sorted(stamps) == STAMPS
    assert {t.child_frame_id for t in message.transforms} == {'person_1', 'person_2'}


def test_poses_equal_those_of_detect_poses(tmp_path, street):
    blazepose = metrabs_ros.load_model('blazepose')
    shifted = [np.roll(street, 8 * i, axis=1) for i in range(2)]
    source = write_bag(tmp_path / 'bag', [image[..., ::-1] for image in shifted])
    _, output = run(source, blazepose, skeleton='coco_17')
    height, width = street.shape[:2]
    intrinsics = [[FOCAL_PX, 0, width / 2], [0, FOCAL_PX, height / 2], [0, 0, 1]]
    found = people_in(output)
    assert len(found) == 2
    for image, (_, people) in zip(shifted, found):
        expected = blazepose.detect_poses(image, intrinsics, skeleton='coco_17')
        assert len(people) > 1
        np.testing.assert_allclose(people.poses3d_mm, expected['poses3d'], rtol=0, atol=1e-4)
        np.testing.assert_allclose(people.poses2d_px, expected['poses2d'], rtol=0, atol=1e-4)
        np.testing.assert_allclose(people.boxes_px, expected['boxes'][:, :4], rtol=0, atol=1e-4)


@pytest.mark.parametrize('name', ['h36m_17', 'coco_17'])
@pytest.mark.parametrize('follow', [False, True])
def test_combined_joints_are_those_of_the_tracked_people(tmp_path, images, model, follow, name):
    source = write_bag(tmp_path / 'bag', images)
    definitions = [
        dataclasses.replace(
            DEFINITIONS[name],
            skeleton=dataclasses.replace(DEFINITIONS[name].skeleton, name='own_17'),
            deviations_mm=np.full(17, 20.0),
        )
    ]
    write_definitions(tmp_path / 'own.json', definitions)
    own = KnownPeople(*model.places_mm)
    own.add_skeletons(definitions)
    options = {'follow': follow, 'stature': 1.9, 'csv': ''}
    _, whole = run(source, own, tmp_path / 'whole', **options)
    _, output = run(
        source,
        own,
        tmp_path / 'own',
        skeleton='own_17',
        skeleton_file=tmp_path / 'own.json',
        **options,
    )
    for (_, before), (_, people) in zip(people_in(whole), people_in(output), strict=True):
        expected = before.in_convention(own.convention('own_17'))
        np.testing.assert_allclose(people.poses3d_mm, expected.poses3d_mm, atol=1e-3)
        np.testing.assert_allclose(people.axis_std_mm, expected.axis_std_mm, atol=1e-3)
        np.testing.assert_array_equal(people.estimated_statures_mm, before.estimated_statures_mm)
        np.testing.assert_array_equal(people.ids, before.ids)


def test_only_results_copies_no_messages(tmp_path, images, model):
    _, output = run(write_bag(tmp_path / 'bag', images), model, only_results=True)
    names = {name for name, _, _ in messages_in(output)}
    assert names == {'/camera/pose/skeletons', '/camera/pose/markers', '/tf'}


@pytest.mark.parametrize('quality', ['.jpg', '.png'])
def test_compressed_images_are_processed(tmp_path, images, model, quality):
    topic = RecordedTopic('/camera/image_raw/compressed', quality=quality)
    summary, output = run(write_bag(tmp_path / 'bag', images, [topic]), model)
    assert summary.processed == FRAMES
    assert len(people_in(output)) == FRAMES
    assert model.seen[0][0] == (120, 160, 3)


def test_one_topic_per_camera_is_processed(tmp_path, images, model):
    topics = [RecordedTopic(), RecordedTopic('/camera/image_raw/compressed', quality='.jpg')]
    source = write_bag(tmp_path / 'bag', images, topics)
    summary, _ = run(source, model)
    assert summary.frames == FRAMES
    assert 'image_raw/compressed is skipped: it is of the same camera' in summary.warnings[0]
    summary, _ = run(source, model, tmp_path / 'other', topics=('/camera/image_raw/compressed',))
    assert (summary.processed, summary.warnings) == (FRAMES, [])


def test_people_of_two_cameras_are_written_separately(tmp_path, images, model):
    topics = [
        RecordedTopic(f'/{side}/image_raw', f'{side}_frame', f'/{side}/camera_info')
        for side in ('left', 'right')
    ]
    summary, output = run(write_bag(tmp_path / 'bag', images, topics), model, csv='')
    assert summary.processed == 2 * FRAMES
    for side in ('left', 'right'):
        found = people_in(output, f'/{side}/pose/skeletons')
        assert [stamp for stamp, _ in found] == STAMPS
    frames = {
        (t.header.frame_id, t.child_frame_id)
        for _, _, data in messages_in(output, '/tf')
        for t in typestore().deserialize_cdr(data, TRANSFORMS).transforms
    }
    assert ('left_frame', 'left_person_1') in frames
    assert ('right_frame', 'right_person_2') in frames
    with open(output / 'joints.csv') as file:
        assert {row['camera'] for row in csv.DictReader(file)} == {t.name for t in topics}


def test_image_topics_without_calibration_are_skipped(tmp_path, images, model):
    topics = [
        RecordedTopic(),
        RecordedTopic('/other/image_raw', 'other_frame', info=None),
    ]
    source = write_bag(tmp_path / 'bag', images, topics)
    summary, output = run(source, model)
    assert summary.processed == FRAMES
    assert '/other/image_raw is skipped: it has no CameraInfo' in summary.warnings[0]
    assert '--camera-info FILE' in summary.warnings[0]
    assert len(messages_in(output, '/other/image_raw')) == FRAMES


def test_a_bag_without_calibration_is_rejected_with_advice(tmp_path, images, model):
    source = write_bag(tmp_path / 'bag', images, [RecordedTopic(info=None)])
    with pytest.raises(
        UnreadableRecording,
        match=r'--camera-info FILE, or an approximate field of view with --fov DEGREES',
    ):
        run(source, model)
    summary, _ = run(source, model, fov_degrees=60.0)
    assert summary.processed == FRAMES
    assert model.seen[-1][1].intrinsic_matrix[0, 0] == pytest.approx(80 / np.tan(np.pi / 6))


CALIBRATIONS = {
    'by the calibrator': """
image_width: 160
image_height: 120
camera_name: front
camera_matrix: {rows: 3, cols: 3, data: [111, 0, 80, 0, 112, 60, 0, 0, 1]}
distortion_model: plumb_bob
distortion_coefficients: {rows: 1, cols: 5, data: [0.1, 0, 0, 0, 0]}
""",
    'printed': """
header: {frame_id: camera}
height: 120
width: 160
distortion_model: plumb_bob
d: [0.1, 0.0, 0.0, 0.0, 0.0]
k: [111.0, 0.0, 80.0, 0.0, 112.0, 60.0, 0.0, 0.0, 1.0]
binning_x: 0
roi: {x_offset: 0, y_offset: 0, height: 0, width: 0, do_rectify: false}
---
""",
}


@pytest.mark.parametrize('text', CALIBRATIONS.values(), ids=CALIBRATIONS)
def test_a_calibration_from_a_file_is_used(tmp_path, images, model, text):
    file = tmp_path / 'camera.yaml'
    file.write_text(text)
    source = write_bag(tmp_path / 'bag', images, [RecordedTopic(info=None)])
    run(source, model, camera_info=file)
    camera = model.seen[-1][1]
    assert camera.intrinsic_matrix[0, 0] == 111
    assert camera.distortion_coeffs[0] == 0.1


def test_each_image_uses_its_own_calibration_if_it_follows_the_image(tmp_path, images, model):
    source = write_bag(tmp_path / 'bag', images)
    # The focal length changes with the fourth image, as with a zoom lens.
    infos = messages_in(source, '/camera/camera_info')
    extra = []
    for i, (name, time_ns, data) in enumerate(infos):
        info = typestore().deserialize_cdr(data, 'sensor_msgs/msg/CameraInfo')
        k = info.k.copy()
        k[0] = k[4] = FOCAL_PX if i < 3 else 2 * FOCAL_PX
        changed = dataclasses.replace(info, k=k)
        extra.append((name, 'sensor_msgs/msg/CameraInfo', time_ns, changed))
    for name, time_ns, data in messages_in(source, '/camera/image_raw'):
        extra.append((name, IMAGE, time_ns, data))
    shutil.rmtree(source)
    write_bag(source, [], extra=sorted(extra, key=lambda item: item[2]))
    run(source, model, batch=2)
    focal_px = [camera.intrinsic_matrix[0, 0] for _, camera, _ in model.seen]
    assert focal_px == [FOCAL_PX] * 3 + [2 * FOCAL_PX] * 3


def test_depth_images_are_skipped(tmp_path, images, model):
    depths = [np.zeros((120, 160), np.uint16) for _ in images]
    topic = RecordedTopic('/depth/image_raw', info='/depth/camera_info', encoding='16UC1')
    both = write_bag(
        tmp_path / 'bag',
        images,
        extra=[
            (topic.name, IMAGE, START_NS + i, depth_message(depth, i, topic))
            for i, depth in enumerate(depths)
        ],
    )
    summary, _ = run(both, model)
    assert summary.frames == FRAMES
    assert summary.warnings == ['/depth/image_raw is skipped: it has depth images (16UC1)']


def depth_message(depth, i, topic):
    return message_factory(IMAGE)(
        header=header(i),
        height=120,
        width=160,
        encoding=topic.encoding,
        step=320,
        data=depth.view(np.uint8).reshape(-1),
    )


def test_new_results_replace_those_in_the_recording(tmp_path, images, model):
    _, first = run(write_bag(tmp_path / 'bag', images), model)
    summary, again = run(first, KnownPeople((0, 0, 5000)), tmp_path / 'again')
    assert 'already contains results' in summary.warnings[0]
    assert [len(people) for _, people in people_in(again)] == [1] * FRAMES
    assert len(messages_in(again, '/tf')) == FRAMES
    assert len(messages_in(again, '/chatter')) == FRAMES


@pytest.mark.parametrize('kind', WHOLE_FILES)
@pytest.mark.parametrize('share', [0.55, 0.9, 0.999])
def test_a_truncated_bag_is_processed_up_to_the_damage(tmp_path, kind, share, model):
    rng = np.random.default_rng(0)
    # Images are large enough for several chunks per file.
    pictures = [rng.integers(0, 255, (600, 800, 3), np.uint8) for _ in range(FRAMES)]
    source = FORMATS[kind](tmp_path / 'bag', pictures)
    file = source if source.is_file() else next(f for f in source.iterdir() if 'bag' in f.name)
    with open(file, 'r+b') as stream:
        stream.truncate(int(share * file.stat().st_size))
    summary, output = run(source, model)
    assert 'can be read' in summary.warnings[0] or 'is damaged after' in summary.warnings[0]
    assert int(share * FRAMES) - 1 <= summary.processed <= FRAMES
    assert [stamp for stamp, _ in people_in(output)] == STAMPS[: summary.processed]


def test_a_bag_without_metadata_is_read(tmp_path, images, model):
    source = write_bag(tmp_path / 'bag', images)
    (source / 'metadata.yaml').unlink()
    summary, _ = run(source, model)
    assert summary.processed == FRAMES


@pytest.mark.parametrize('definition', ['this is no definition', 'int32 something_else\n', ''])
def test_a_wrong_image_definition_is_ignored(tmp_path, images, model, definition):
    source = write_bag(tmp_path / 'bag', images, definitions={IMAGE: definition})
    summary, output = run(source, model)
    assert summary.processed == FRAMES
    assert len(messages_in(output, '/camera/image_raw')) == FRAMES
    if definition:
        assert 'differs from that of ROS' in summary.warnings[0]


def test_invalid_image_messages_are_counted(tmp_path, images, model):
    broken = [('/camera/image_raw', IMAGE, START_NS + 50, b'\x00\x01\x00\x00no image at all')]
    source = write_bag(tmp_path / 'bag', images, extra=broken)
    summary, _ = run(source, model)
    assert (summary.frames, summary.processed) == (FRAMES + 1, FRAMES)
    count, example = summary.unusable['image message']
    assert count == 1
    assert '/camera/image_raw' in example
    assert any('not processed' in line for line in summary.lines())


def test_a_bag_without_frames_is_copied_with_a_note(tmp_path, model):
    empty = write_bag(tmp_path / 'bag', [], [RecordedTopic()])
    with pytest.raises(UnreadableRecording, match='no images'):
        run(empty, model)
    summary, output = run(empty, model, fov_degrees=60.0)
    assert 'the recording has no images' in summary.lines()
    assert people_in(output) == []


def test_an_empty_bag_file_is_rejected(tmp_path, model):
    source = tmp_path / 'bag.mcap'
    source.write_bytes(b'')
    with pytest.raises(UnreadableRecording, match='cannot be read as a bag'):
        run(source, model)


def test_a_bag_without_images_is_rejected_with_its_topics(tmp_path, model):
    text = message_factory('std_msgs/msg/String')(data='hello')
    extra = [('/talk', 'std_msgs/msg/String', START_NS, text)]
    source = write_bag(tmp_path / 'bag', [], [], extra=extra)
    with pytest.raises(UnreadableRecording, match=r'/talk \(std_msgs/msg/String\)'):
        run(source, model)


class Interrupting(KnownPeople):
    """A model that is interrupted after some frames."""

    def __init__(self, *places_mm, frames):
        super().__init__(*places_mm)
        self.frames = frames

    def poses_of(self, view, options):
        if len(self.seen) == self.frames:
            raise KeyboardInterrupt
        return super().poses_of(view, options)


@pytest.mark.parametrize('follow', [False, True])
def test_an_interrupted_run_is_resumed(tmp_path, images, model, follow):
    source = write_bag(tmp_path / 'bag', images)
    stopping = Interrupting(*model.places_mm, frames=4)
    with pytest.raises(KeyboardInterrupt):
        run(source, stopping, batch=2, follow=follow)
    assert not (tmp_path / 'results').exists()
    resume_log = tmp_path / f'results{UNFINISHED}' / 'resume_log'
    # Truncate the last entry, as after a power failure.
    with open(resume_log, 'r+b') as stream:
        stream.truncate(resume_log.stat().st_size - 10)
    summary, output = run(source, model, follow=follow)
    assert (summary.processed, summary.resumed) == (FRAMES, 3)
    assert len(model.seen) == FRAMES - 3
    assert not resume_log.exists()
    _, uninterrupted = run(source, model, tmp_path / 'uninterrupted', follow=follow)
    assert len(people_in(output)) == len(people_in(uninterrupted)) == FRAMES
    # With `follow`, test_resume.py compares the results.
    if not follow:
        assert messages_in(output) == messages_in(uninterrupted)


def test_results_of_other_options_are_not_resumed(tmp_path, images, model):
    source = write_bag(tmp_path / 'bag', images)
    with pytest.raises(KeyboardInterrupt):
        run(source, Interrupting(*model.places_mm, frames=3), batch=1)
    summary, _ = run(source, model, num_aug=2)
    assert summary.resumed == 0


def test_results_are_replaced_only_with_overwrite(tmp_path, images, model):
    source = write_bag(tmp_path / 'bag', images)
    run(source, model)
    with pytest.raises(FileExistsError, match='--overwrite'):
        run(source, model)
    summary, _ = run(source, model, overwrite=True)
    assert summary.processed == FRAMES


class Failing(KnownPeople):
    """A model that raises an exception at every third image."""

    def poses_of(self, view, options):
        poses = super().poses_of(view, options)
        if len(self.seen) % 3 == 0:
            raise RuntimeError('out of something')
        return poses


def test_a_failure_of_the_network_affects_one_frame(tmp_path, images):
    summary, output = run(write_bag(tmp_path / 'bag', images), Failing((0, 0, 3000)), batch=1)
    assert summary.processed == 4
    assert summary.unusable == {'failed: RuntimeError': (2, 'out of something')}
    assert len(people_in(output)) == 4


def test_tables_have_one_row_per_joint(tmp_path, images, model):
    source = write_bag(tmp_path / 'bag', images)
    _, output = run(source, model, csv='', parquet=str(tmp_path / 'a.parquet'), skeleton='coco_17')
    with open(output / 'joints.csv') as file:
        rows = list(csv.DictReader(file))
    names = ['deviation_x', 'deviation_y', 'deviation_z']
    assert list(rows[0]) == [
        *('stamp', 'id', 'joint', 'x', 'y', 'z', 'deviation', *names, 'stature', 'scale_source')
    ]
    assert len(rows) == FRAMES * 2 * 17
    table = pyarrow.parquet.read_table(tmp_path / 'a.parquet').to_pylist()
    assert [row['joint'] for row in table] == [row['joint'] for row in rows]
    _, people = people_in(output)[0]
    for i, row in enumerate(rows[:17]):
        place_m = [float(row[axis]) for axis in 'xyz']
        np.testing.assert_allclose(place_m, people.poses3d_mm[0, i] / 1000, atol=1e-6)
        assert float(row['deviation']) == pytest.approx(people.joint_std_mm[0, i] / 1000, abs=1e-6)
        np.testing.assert_allclose([table[i][axis] for axis in 'xyz'], place_m, atol=1e-6)
        deviations_m = [float(row[name]) for name in names]
        np.testing.assert_allclose(deviations_m, people.axis_std_mm[0, i] / 1000, atol=1e-6)
        np.testing.assert_allclose([table[i][name] for name in names], deviations_m, atol=1e-6)
        for values in (row, table[i]):
            assert float(values['stature']) == 0
            assert int(values['scale_source']) == 0
    assert rows[0]['stamp'] == '1700000000.000000000'
    assert table[-1]['stamp'] == pytest.approx(1_700_000_000.5)


def write_parquet(file, *names):
    pyarrow.parquet.write_table(pyarrow.table({name: [1.0] for name in names}), file)


def write_torn_parquet(file):
    file.write_bytes(b'PAR1' + 100 * b'x')


OTHER_TABLES = {
    'parquet of another': ('parquet', lambda file: write_parquet(file, 'name', 'salary')),
    'parquet of more': (
        'parquet',
        lambda file: write_parquet(file, *COLUMNS, 'notes'),
    ),
    'damaged parquet': ('parquet', write_torn_parquet),
    'csv of another': ('csv', lambda file: file.write_text('name,salary\n')),
    'csv of more': ('csv', lambda file: file.write_text('stamp,id,joint,x,y,z,deviation,notes\n')),
}


@pytest.mark.parametrize('kind', OTHER_TABLES)
def test_files_that_are_not_tables_of_joints_are_not_replaced(tmp_path, images, model, kind):
    option, write = OTHER_TABLES[kind]
    file = tmp_path / f'own.{option}'
    write(file)
    before = file.read_bytes()
    source = write_bag(tmp_path / 'bag', images)
    with pytest.raises(ValueError, match='is not a table of joints and is not replaced'):
        run(source, model, overwrite=True, **{option: str(file)})
    assert file.read_bytes() == before


@pytest.mark.parametrize('option', ['csv', 'parquet'])
def test_tables_of_joints_of_one_or_more_cameras_are_replaced(tmp_path, images, model, option):
    file = tmp_path / f'own.{option}'
    topics = [
        RecordedTopic(f'/{side}/image_raw', f'{side}_frame', f'/{side}/camera_info')
        for side in ('left', 'right')
    ]
    alone = write_bag(tmp_path / 'alone', images[:2])
    pair = write_bag(tmp_path / 'pair', images[:2], topics)
    for i, source in enumerate((alone, pair, alone)):
        run(source, model, tmp_path / str(i), overwrite=True, **{option: str(file)})
    with pytest.raises(FileExistsError, match='use --overwrite to replace it'):
        run(source, model, tmp_path / 'last', **{option: str(file)})


@pytest.mark.parametrize('only_results', [False, True])
def test_a_video_is_processed(tmp_path, images, model, only_results):
    file = tmp_path / 'video.avi'
    video = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*'MJPG'), 20.0, (160, 120))
    smooth = [cv2.GaussianBlur(image, (0, 0), 5) for image in images]
    for image in smooth:
        video.write(image)
    video.release()
    summary, output = run(file, model, fov_degrees=70.0, only_results=only_results)
    assert summary.processed == FRAMES
    found = people_in(output)
    assert [stamp for stamp, _ in found] == [i * 50_000_000 for i in range(FRAMES)]
    pictures = messages_in(output, '/camera/image_raw/compressed')
    assert len(pictures) == (0 if only_results else FRAMES)
    if pictures:
        message = typestore().deserialize_cdr(pictures[0][2], COMPRESSED_IMAGE)
        kept = cv2.imdecode(message.data, cv2.IMREAD_COLOR)
        assert np.abs(kept.astype(int) - smooth[0]).mean() < 4


def test_an_image_folder_is_processed_with_an_assumed_field_of_view(tmp_path, images, model):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f'{i}.png'), image)
    summary, output = run(folder, model)
    assert summary.processed == FRAMES
    assert 'field of view of 55 degrees is assumed' in summary.warnings[0]
    # The results of an image folder are a bag, which can be annotated again.
    summary, _ = run(output, model, tmp_path / 'again')
    assert summary.processed == FRAMES


def test_two_runs_with_the_same_output_are_rejected(tmp_path, images):
    source = write_bag(tmp_path / 'bag', images)

    class Twice(KnownPeople):
        def poses_of(self, view, options):
            with pytest.raises(ValueError, match='another run is writing'):
                run(source, KnownPeople((0, 0, 3000)))
            return super().poses_of(view, options)

    summary, _ = run(source, Twice((0, 0, 3000)), batch=1)
    assert summary.processed == FRAMES


@pytest.mark.parametrize('number', [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_results_are_written_on_file_systems_without_locks(
    tmp_path, images, model, monkeypatch, number
):
    def flock(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, 'flock', flock)
    summary, _ = run(write_bag(tmp_path / 'bag', images), model)
    assert summary.processed == FRAMES


def test_a_lock_that_fails_otherwise_is_reported_with_its_reason(
    tmp_path, images, model, monkeypatch
):
    def flock(descriptor, operation):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, 'flock', flock)
    with pytest.raises(ValueError, match='results cannot be written: input/output error'):
        run(write_bag(tmp_path / 'bag', images), model)


def test_unknown_topics_are_rejected_with_the_known_names(tmp_path, images, model):
    source = write_bag(tmp_path / 'bag', images)
    with pytest.raises(UnreadableRecording, match='no images on /x; it has images on /c'):
        run(source, model, topics=('/x',))


def test_paths_that_are_not_recordings_are_rejected(tmp_path, model):
    with pytest.raises(ValueError, match='does not exist'):
        run(tmp_path / 'missing.mcap', model)
    file = pathlib.Path(tmp_path / 'text.txt')
    file.write_text('hello')
    with pytest.raises(ValueError, match='cannot be read as a video'):
        run(file, model)
