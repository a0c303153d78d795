"""Person scale in recordings: ground plane from transforms, depth images, known stature."""

from __future__ import annotations

import collections

import cv2
import numpy as np
import pytest
from known_people import KnownPeople
from recorded_bags import (
    START_NS,
    STEP_NS,
    RecordedTopic,
    header,
    info_message,
    messages_in,
    messages_of,
    people_in,
    write_bag,
    write_ros1_bag,
)
from recorded_transforms import OPTICAL, recorded_tree, transform_message

from metrabs_ros import cli
from metrabs_ros.conversions.depth_images import MAX_OFFSET_NS
from metrabs_ros.placement.person_scale import Cue
from metrabs_ros.recordings.annotate import annotate
from metrabs_ros.recordings.bag_message import Topic
from metrabs_ros.recordings.bag_recording import BagRecording
from metrabs_ros.recordings.bags import Bag, UnreadableRecording
from metrabs_ros.recordings.image_files import UnusableSource
from metrabs_ros.recordings.options import AnnotateOptions
from metrabs_ros.recordings.recording import RecordedFrame
from metrabs_ros.recordings.scale_cues import (
    LOOK_AHEAD_NS,
    CueOptions,
    FrameDelay,
    RecordedDepths,
)
from metrabs_ros.recordings.typestore import (
    CAMERA_INFO,
    COMPRESSED_IMAGE,
    IMAGE,
    TRANSFORMS,
    header_at,
    message_factory,
)
from metrabs_ros.view.results import Results

FRAMES = 12
FRAME = 'camera_optical_frame'
COLOR = RecordedTopic(quality='.png')
DEPTH = '/camera/depth_registered/image_raw'
SHAPE = (480, 640)
SOLE_MM = 900.0
"""Distance of the soles of `KnownPeople` from their hips."""
SIZE = 1.1
"""True size of the people, relative to what the network estimates."""
CAMERA_M = SIZE * SOLE_MM / 1000
"""Height of the camera above the floor at which the people have this size."""
SKIN = 0.975
"""Ratio of the depths of skin and joints, of people at 4 m."""
STATIC = recorded_tree('/tf_static', 0, transform_message('base', FRAME, 0, (0, 0, 0), OPTICAL))


@pytest.fixture
def images():
    """Return uniform images, BGR."""
    return [np.full((*SHAPE, 3), 10 * i, np.uint8) for i in range(FRAMES)]


@pytest.fixture
def model():
    """Return a model that detects a person at the height of the camera."""
    return KnownPeople((0, 0, 4000))


def write(folder, images, extra, topics=(COLOR,)):
    """Write a bag in the order of the times of recording."""
    messages = sorted([*messages_of(images, topics), *extra], key=lambda message: message[2])
    return write_bag(folder, [], topics, extra=messages)


def moving(delay_ns=0, height_m=CAMERA_M, period_ns=STEP_NS):
    """Return transforms of a robot on the floor, recorded with a delay after their stamps."""
    return [
        recorded_tree(
            '/tf',
            time_ns + delay_ns,
            transform_message('floor', 'base', START_NS + time_ns, (time_ns * 1e-9, 0, height_m)),
        )
        for time_ns in range(0, FRAMES * STEP_NS, period_ns)
    ]


def depth_message(i, depth_m, shape=SHAPE, encoding='16UC1', frame_id=FRAME, offset_ns=0):
    """Return a message of a bag with a depth image; 16UC1 in millimetres, 32FC1 in metres."""
    if encoding == '16UC1':
        depth = np.full(shape, 1000 * depth_m, np.uint16)
    else:
        depth = np.full(shape, depth_m, np.float32)
    return message_factory(IMAGE)(
        header=header_at(START_NS + i * STEP_NS + offset_ns, frame_id),
        height=shape[0],
        width=shape[1],
        encoding=encoding,
        step=depth[0].nbytes,
        data=depth.view(np.uint8).reshape(-1),
    )


def depths(depth_m=4 * SIZE * SKIN, delay_ns=0, topic=DEPTH, **arguments):
    """Return messages with depth images, recorded with a delay after the images."""
    return [
        (
            topic,
            IMAGE,
            START_NS + i * STEP_NS + delay_ns,
            depth_message(i, depth_m, **arguments),
        )
        for i in range(FRAMES)
    ]


def run(source, model, name='results', **options):
    """Annotate; return the summary, and the scale of the first person in the last frame."""
    output = source.parent / name
    summary = annotate(source, output, AnnotateOptions(**options), model, lambda message: None)
    assert summary.processed == summary.frames == FRAMES
    (_, people) = people_in(output)[-1]
    expected_mm = np.linalg.norm(model.places_mm[0])
    return summary, np.linalg.norm(people.positions_mm[0]) / expected_mm


@pytest.mark.parametrize('follow', [False, True])
def test_the_ground_plane_scales_people(tmp_path, images, model, follow):
    source = write(tmp_path / 'bag', images, [STATIC, *moving()])
    summary, without = run(source, model, 'without', follow=follow)
    assert (summary.unused_cues, without) == ({}, pytest.approx(1, abs=1e-3))
    summary, scale = run(source, model, follow=follow, ground_frame='floor')
    assert (summary.unused_cues, summary.warnings) == ({}, [])
    assert scale == pytest.approx(SIZE, abs=0.03)
    _, higher = run(source, model, 'higher', ground_frame='floor', ground_height=0.09)
    assert higher == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize('follow', [False, True])
def test_depth_images_scale_people(tmp_path, images, model, follow):
    source = write(tmp_path / 'bag', images, depths())
    summary, scale = run(source, model, follow=follow, depth='auto')
    assert (summary.unused_cues, summary.warnings) == ({}, [])
    assert scale == pytest.approx(SIZE, abs=0.03)
    floats = write(tmp_path / 'floats', images, depths(encoding='32FC1'))
    _, other = run(floats, model, 'other', follow=follow, depth=DEPTH)
    assert other == pytest.approx(scale, abs=1e-3)


def test_compressed_depth_images_scale_people(tmp_path, images, model):
    _, png = cv2.imencode('.png', np.full(SHAPE, 4000 * SIZE * SKIN, np.uint16))
    data = np.concatenate([np.zeros(12, np.uint8), png.reshape(-1)])
    compressed = [
        (
            f'{DEPTH}/compressedDepth',
            COMPRESSED_IMAGE,
            START_NS + i * STEP_NS,
            message_factory(COMPRESSED_IMAGE)(
                header=header(i), format='16UC1; compressedDepth png', data=data
            ),
        )
        for i in range(FRAMES)
    ]
    source = write(tmp_path / 'bag', images, compressed)
    summary, scale = run(source, model, depth='auto')
    assert (summary.unused_cues, summary.warnings) == ({}, [])
    assert scale == pytest.approx(SIZE, abs=0.03)


def test_results_state_the_cues_and_the_stature(tmp_path, images, model):
    source = write(tmp_path / 'bag', images, [STATIC, *moving(), *depths()])
    options = {'ground_frame': 'floor', 'depth': 'auto', 'stature': 1.8}
    for name, cues in (
        ('ground_frame', Cue.GROUND_PLANE),
        ('depth', Cue.DEPTH_IMAGE),
        ('stature', Cue.STATURE),
    ):
        run(source, model, name, **{name: options[name]})
        _, people = people_in(tmp_path / name)[-1]
        assert people.scale_cues.tolist() == [cues]
        assert people.estimated_statures_mm[0] == pytest.approx(people.statures_mm[0], rel=0.03)
    run(source, model, 'all', **options)
    assert people_in(tmp_path / 'all')[-1][1].scale_cues.tolist() == [sum(Cue)]
    run(source, model, 'none')
    assert people_in(tmp_path / 'none')[-1][1].scale_cues.tolist() == [0]


@pytest.mark.parametrize('follow', [False, True])
def test_the_stature_scales_people(tmp_path, images, model, follow):
    source = write(tmp_path / 'bag', images, [])

    def stature_m(name, **options):
        run(source, model, name, follow=follow, **options)
        return people_in(tmp_path / name)[-1][1].statures_mm[0] / 1000

    true_m = SIZE * stature_m('unscaled')
    assert stature_m('scaled', stature=true_m) == pytest.approx(true_m, rel=0.02)


def test_the_stature_scales_people_in_images(tmp_path, images, model):
    folder = tmp_path / 'images'
    folder.mkdir()
    for i, image in enumerate(images):
        cv2.imwrite(str(folder / f'{i:03}.png'), image)
    _, unscaled = run(folder, model, 'unscaled')
    _, scaled = run(folder, model, 'scaled', stature=2.0)
    assert scaled > 1.05 * unscaled
    for options in ({'ground_frame': 'floor'}, {'depth': 'auto'}):
        with pytest.raises(UnusableSource, match=r'needs a bag, and .*images is none'):
            run(folder, model, 'refused', **options)


def test_the_scale_of_duplicates_is_that_of_their_person(tmp_path, images):
    model = KnownPeople((0, 0, 4000), (20, 0, 4000))
    source = write(tmp_path / 'bag', images, [STATIC, *moving()])
    run(source, model, ground_frame='floor')
    for _, people in people_in(tmp_path / 'results'):
        assert len(people) == 2
        assert people.ids[1] == -1
        distances_mm = people.distances_mm
        assert distances_mm[1] == pytest.approx(distances_mm[0], rel=1e-3)
        assert distances_mm[0] > 4100


@pytest.mark.parametrize('msgtype', [TRANSFORMS, 'tf/msg/tfMessage'])
def test_transforms_in_ros1_bags_are_used(tmp_path, images, model, msgtype):
    # With the slashes before frame names of the first versions.
    transforms = recorded_tree(
        '/tf',
        0,
        transform_message('/floor', '/base', START_NS, (0, 0, CAMERA_M)),
        transform_message('/floor', '/base', START_NS + FRAMES * STEP_NS, (0, 0, CAMERA_M)),
        transform_message('/base', f'/{FRAME}', START_NS, (0, 0, 0), OPTICAL),
        transform_message('/base', f'/{FRAME}', START_NS + FRAMES * STEP_NS, (0, 0, 0), OPTICAL),
    )
    extra = [(transforms[0], msgtype, *transforms[2:])]
    source = write_ros1_bag(tmp_path / 'bag.bag', images, [COLOR], extra=extra)
    summary, scale = run(source, model, ground_frame='floor')
    assert (summary.unused_cues, summary.warnings) == ({}, [])
    assert scale == pytest.approx(SIZE, abs=0.03)


def test_a_bag_without_transforms_is_reported(tmp_path, images, model):
    text = ('/tf', 'std_msgs/msg/String', START_NS, b'')
    summary, scale = run(write(tmp_path / 'bag', images, [text]), model, ground_frame='floor')
    assert scale == pytest.approx(1, abs=1e-3)
    assert list(summary.unused_cues) == ['ground plane, no transform']
    assert 'no transforms (topics /tf and /tf_static)' in summary.warnings[0]


def views_of(source, options, calibration=None):
    """Return the frames of a bag with their cues, and the counts of unused cues."""
    unused = collections.Counter()
    warnings = []
    recording = BagRecording(
        Bag(source, warnings.append),
        calibration,
        0,
        (),
        False,
        warnings.append,
        options,
        lambda error: unused.update([error.cause]),
    )
    try:
        views = [recording.view(own) for own in recording if isinstance(own, RecordedFrame)]
    finally:
        recording.close()
    return views, unused, warnings


def test_the_ground_plane_is_that_at_the_stamp_of_the_image(tmp_path, images):
    # Transforms at other stamps than the images, of a camera that rises at 0.4 m/s.
    rising = [
        recorded_tree(
            '/tf',
            time_ns,
            transform_message('floor', 'base', START_NS + time_ns, (0, 0, 1 + 0.4e-9 * time_ns)),
        )
        for time_ns in range(-70_000_000, FRAMES * STEP_NS, 80_000_000)
    ]
    source = write(tmp_path / 'bag', images, [STATIC, *rising])
    views, unused, warnings = views_of(source, CueOptions('', 'floor', 0.25))
    assert (len(views), dict(unused), warnings) == (FRAMES, {}, [])
    for i, view in enumerate(views[:-1]):
        assert view.stamp_s == pytest.approx((START_NS + i * STEP_NS) * 1e-9)
        np.testing.assert_allclose(view.ground.up, (0, -1, 0), atol=1e-6)
        assert view.ground.camera_height_mm == pytest.approx(750 + 0.4e-6 * i * STEP_NS, abs=0.01)


def test_late_transforms_are_used_up_to_the_look_ahead(tmp_path, images):
    in_time = LOOK_AHEAD_NS - STEP_NS // 2
    source = write(tmp_path / 'bag', images, [STATIC, *moving(in_time)])
    views, unused, _ = views_of(source, CueOptions('', 'floor'))
    assert not unused
    assert all(view.ground is not None for view in views)
    late = write(tmp_path / 'late', images, [STATIC, *moving(LOOK_AHEAD_NS + 2 * STEP_NS)])
    views, unused, _ = views_of(late, CueOptions('', 'floor'))
    assert unused['ground plane, no transform'] >= FRAMES - 6
    assert sum(view.ground is None for view in views) == unused.total()


def test_static_transforms_may_be_recorded_after_the_images(tmp_path, images):
    static = (*STATIC[:2], START_NS + (FRAMES - 1) * STEP_NS, STATIC[3])
    source = write(tmp_path / 'bag', images, [static, *moving()])
    views, unused, _ = views_of(source, CueOptions('', 'floor'))
    assert not unused
    assert all(view.ground is not None for view in views)


def test_a_missing_ground_frame_is_reported_once_and_counted(tmp_path, images, model):
    source = write(tmp_path / 'bag', images, [STATIC, *moving()])
    run(source, model, 'without')
    summary, _ = run(source, model, ground_frame='map')
    explanation = (
        "ground frame 'map': 'map' is not in the transforms of the bag so far "
        f'(frames: base, {FRAME}, floor)'
    )
    assert summary.warnings == [explanation]
    assert summary.unused_cues == {'ground plane, no transform': (FRAMES, explanation)}
    assert f'{FRAMES} frames without ground plane, no transform: {explanation}' in summary.lines()
    assert positions(tmp_path / 'results') == positions(tmp_path / 'without')


def positions(output):
    return [people.poses3d_mm.tolist() for _, people in people_in(output)]


def test_a_floor_above_the_camera_is_reported(tmp_path, images, model):
    source = write(tmp_path / 'bag', images, [STATIC, *moving()])
    summary, scale = run(source, model, ground_frame='floor', ground_height=2.0)
    assert scale == pytest.approx(1, abs=1e-3)
    assert 'the floor is -1.01 m below the camera' in summary.warnings[0]
    assert summary.unused_cues['ground plane, camera height'][0] == FRAMES


def hostile_transforms():
    """Return messages with invalid transforms, cycles and very many names."""
    nan = transform_message('floor', 'base', START_NS, (np.nan, 0, 0))
    yield recorded_tree('/tf', 0, nan, transform_message('floor', 'base', START_NS, (1e300, 0, 0)))
    yield recorded_tree('/tf', 0, transform_message('a', 'b', 0), transform_message('b', 'a', 0))
    yield recorded_tree('/tf_static', 0, transform_message('base', 'base', 0))
    for i in range(FRAMES):
        yield recorded_tree(
            '/tf',
            i * STEP_NS,
            *(transform_message(f'x{i}-{j}', f'y{i}-{j}', 0) for j in range(200)),
            transform_message('floor', 'base', START_NS, (0, 0, 1), (0, 0, 0, 9)),
            transform_message('\x1b[31m' * 2000, 'base', START_NS),
        )
    for topic in ('/tf', '/tf_static'):
        yield topic, TRANSFORMS, START_NS, b'\x00\x01\x00\x00\xff\xff\xff\xff'
        yield topic, TRANSFORMS, START_NS, b''


def test_hostile_transforms_are_rejected_and_counted(tmp_path, images, model):
    source = write(tmp_path / 'bag', images, [STATIC, *hostile_transforms(), *moving()])
    summary, scale = run(source, model, ground_frame='floor')
    assert scale == pytest.approx(SIZE, abs=0.03)
    assert summary.unused_cues == {}
    (warning,) = summary.warnings
    assert warning.startswith(f'{3 + 2 * FRAMES} transforms of ')
    assert "'base' is invalid: the" in warning
    # Without the valid ones.
    source = write(tmp_path / 'hostile', images, hostile_transforms())
    summary, scale = run(source, model, 'other', ground_frame='floor')
    assert scale == pytest.approx(1, abs=1e-3)
    assert summary.unused_cues['ground plane, no transform'][0] == FRAMES
    assert all(len(line) < 1500 and line.isprintable() for line in summary.lines())


def test_a_cycle_between_camera_and_floor_is_reported(tmp_path, images, model):
    cycle = recorded_tree('/tf_static', 0, transform_message(FRAME, 'floor', 0))
    source = write(tmp_path / 'bag', images, [STATIC, cycle, *moving()])
    summary, scale = run(source, model, ground_frame='floor')
    assert scale == pytest.approx(1, abs=1e-3)
    assert 'form a cycle' in summary.warnings[0]


def test_people_of_earlier_results_are_no_transforms_of_the_robot(tmp_path, images, model):
    source = write(tmp_path / 'bag', images, [STATIC, *moving()])
    run(source, model, 'first')
    summary, _ = run(tmp_path / 'first', model, 'second', ground_frame='map')
    assert 'person' not in summary.unused_cues['ground plane, no transform'][1]


def test_the_depth_image_with_the_nearest_stamp_is_used(tmp_path, images):
    recorded = []
    for i in range(0, FRAMES, 2):
        for depth_m, offset_ns in ((2, -MAX_OFFSET_NS), (3, 20_000_000), (4, 30_000_000)):
            message = depth_message(i, depth_m, offset_ns=offset_ns)
            recorded.append((DEPTH, IMAGE, START_NS + i * STEP_NS + 50_000_000, message))
    source = write(tmp_path / 'bag', images, recorded)
    views, unused, _ = views_of(source, CueOptions('auto'))
    for i, view in enumerate(views):
        found_mm = None if view.depth is None else view.depth.depth_mm[0, 0]
        # Of odd images, the nearest depth image is that 50 ms before the next image.
        assert found_mm == (3000 if i % 2 == 0 else 2000 if i + 1 < FRAMES else None), i
    assert unused == {'depth image, none at this time': 1}


def test_late_depth_images_are_used(tmp_path, images):
    source = write(tmp_path / 'bag', images, depths(delay_ns=LOOK_AHEAD_NS - STEP_NS // 2))
    views, unused, _ = views_of(source, CueOptions('auto'))
    assert not unused
    assert all(view.depth is not None for view in views)


def test_depth_images_of_another_size_need_their_camera_info(tmp_path, images):
    shape = (120, 160)
    small = depths(shape=shape)
    source = write(tmp_path / 'bag', images, small)
    views, unused, _ = views_of(source, CueOptions('auto'))
    assert all(view.depth is None for view in views)
    assert unused.total() == FRAMES
    info = info_message(np.zeros((*shape, 3), np.uint8), 0)
    info_topic = f'{DEPTH.rpartition("/")[0]}/camera_info'
    infos = [(info_topic, CAMERA_INFO, time_ns, info) for _, _, time_ns, _ in small]
    source = write(tmp_path / 'with_info', images, [*small, *infos])
    views, unused, _ = views_of(source, CueOptions('auto'))
    assert not unused
    for view in views:
        assert view.depth.depth_mm.shape == shape
        assert view.depth.camera.intrinsic_matrix[0, 2] == 80


def test_registered_depth_images_are_selected(tmp_path, images, model):
    unregistered = depths(1.0, topic='/camera/depth/image_raw', frame_id='depth_frame')
    source = write(tmp_path / 'bag', images, [*unregistered, *depths()])
    summary, scale = run(source, model, depth='auto')
    assert scale == pytest.approx(SIZE, abs=0.03)
    assert summary.warnings == ['/camera/depth/image_raw is skipped: it has depth images (16UC1)']
    summary, scale = run(source, model, 'named', depth='/camera/depth/image_raw')
    assert scale == pytest.approx(1, abs=1e-3)
    assert "TF frame is 'camera_optical_frame'" in summary.warnings[0]
    assert '/camera/depth/image_raw (depth_frame)' in summary.warnings[0]
    with pytest.raises(UnreadableRecording, match='has no depth images on /other'):
        run(source, model, 'missing', depth='/other')
    without = write(tmp_path / 'without', images, [])
    summary, _ = run(without, model, 'none', depth='auto')
    assert summary.warnings == [f'{without} has no depth images']


@pytest.mark.parametrize(('frame_id', 'is_used'), [('', True), (f'/{FRAME}', True), ('a', False)])
def test_depth_images_without_frame_are_registered_to_a_single_camera(
    tmp_path, images, frame_id, is_used
):
    source = write(tmp_path / 'bag', images[:2], depths(frame_id=frame_id)[:2])
    views, _, _ = views_of(source, CueOptions('auto'))
    assert [view.depth is not None for view in views] == 2 * [is_used]
    if not frame_id:
        rear = RecordedTopic('/rear/image_raw', info='/rear/camera_info', quality='.png')
        both = write(tmp_path / 'both', images[:2], depths(frame_id='')[:2], (COLOR, rear))
        views, _, warnings = views_of(both, CueOptions('auto'))
        assert [view.depth for view in views] == 4 * [None]
        assert sum('is processed without depth images' in text for text in warnings) == 2


def test_invalid_depth_images_are_counted_and_frames_processed(tmp_path, images, model):
    broken = depths()
    truncated = depth_message(1, 4.0)
    truncated.data = truncated.data[:100]
    other = depth_message(2, 4.0)
    other.encoding = 'rgb8'
    for i, message in ((1, truncated), (2, other), (3, b'\x00\x01\x00\x00\xff')):
        broken[i] = (*broken[i][:3], message)
    source = write(tmp_path / 'bag', images, broken)
    summary, scale = run(source, model, depth='auto')
    assert scale == pytest.approx(SIZE, abs=0.03)
    assert sum(count for count, _ in summary.unused_cues.values()) == 3


@pytest.mark.parametrize('follow', [False, True])
def test_a_resumed_run_with_cues_equals_an_uninterrupted_run(
    tmp_path, images, model, monkeypatch, follow
):
    extra = [STATIC, *moving(STEP_NS), *depths(delay_ns=2 * STEP_NS)]
    source = write(tmp_path / 'bag', images, extra)
    options = {'follow': follow, 'smoothing': 0.5, 'stature': 1.8, 'batch': 0 if follow else 2}
    options |= {'ground_frame': 'floor', 'depth': 'auto'}
    uninterrupted, _ = run(source, model, 'uninterrupted', **options)

    class Interrupted(KnownPeople):
        def poses_of(self, view, options):
            if len(self.seen) == 7:
                raise KeyboardInterrupt
            return super().poses_of(view, options)

    with pytest.raises(KeyboardInterrupt):
        run(source, Interrupted((0, 0, 4000)), 'resumed', **options)
    resumed, _ = run(source, model, 'resumed', **options)
    assert 0 < resumed.resumed < FRAMES
    assert resumed.unused_cues == uninterrupted.unused_cues == {}
    assert messages_in(tmp_path / 'resumed') == messages_in(tmp_path / 'uninterrupted')


def test_results_with_depth_images_can_be_displayed(tmp_path, images, model):
    source = write(tmp_path / 'bag', images, depths())
    run(source, model, depth='auto')
    Results(tmp_path / 'results', print).close()


def frame_at(time_ns, size_bytes=0):
    return RecordedFrame(0, time_ns, time_ns, '', np.zeros(size_bytes, np.uint8))


def test_frames_wait_in_order_and_within_limits():
    delay = FrameDelay(100, max_bytes=1000, max_frames=5)
    for time_ns in (0, 50, 10**18, 60):
        delay.put(frame_at(time_ns))
    assert [frame.time_ns for frame in delay.due(100)] == []
    assert [frame.time_ns for frame in delay.due(151)] == [0, 50]
    # The frame with the wrong time holds back the others until they are too many.
    assert [frame.time_ns for frame in delay.due(10_000)] == []
    for time_ns in range(70, 74):
        delay.put(frame_at(time_ns))
    assert [frame.time_ns for frame in delay.due(75)] == [10**18]
    assert [frame.time_ns for frame in delay.rest()] == [60, 70, 71, 72, 73]
    for time_ns in range(4):
        delay.put(frame_at(time_ns, 400))
    assert [frame.time_ns for frame in delay.due(0)] == [0, 1]


def test_the_depth_images_in_memory_are_limited():
    buffer = RecordedDepths(max_bytes=3 * 2 * 480 * 640, max_images=100)
    topics = [Topic('/a', IMAGE), Topic('/b', IMAGE)]
    for i in range(10):
        buffer.put(topics[i % 2], depth_message(i, i))
    stamp_ns = START_NS + 8 * STEP_NS
    assert buffer.nearest(topics[0], stamp_ns).data.view(np.uint16)[0] == 8000
    for topic, i in ((topics[1], 8), (topics[0], 4)):
        with pytest.raises(ValueError, match=r'no depth image within 0\.05 s'):
            buffer.nearest(topic, START_NS + i * STEP_NS)
    assert len(buffer._images) == 3


@pytest.mark.parametrize(
    ('arguments', 'problem'),
    [
        (['--stature', '180'], 'stature is 180.0; it must be from 0.4 to 2.6'),
        (['--stature', 'nan'], 'stature is nan'),
        (['--ground-height', '0.1'], 'ground_frame is empty'),
        (['--ground-frame', 'map', '--ground-height', 'inf'], 'ground_height is inf'),
        (['--ground-frame', 'map'], '--ground-frame needs a bag'),
        (['--depth'], '--depth needs a bag'),
    ],
)
def test_the_command_line_explains_unusable_options(tmp_path, capsys, arguments, problem):
    (tmp_path / 'images').mkdir()
    assert cli.main(['annotate', str(tmp_path / 'images'), *arguments]) == 1
    assert problem in capsys.readouterr().err
