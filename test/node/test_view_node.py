"""The browser view shows people, images, frames and diagnostics."""

from __future__ import annotations

import html
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings

import cv2
import numpy as np
import pytest
import rclpy
from browser import free_ports, open_page, wait_for_screenshot
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Point, Vector3
from known_people import KnownPeople
from progress import communicate_with_stall_timeout, descendant_pids
from rclpy.node import Node
from rclpy.parameter import Parameter
from robots import pose_node, spinning, transform, wait_for
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from sockets import listening_addresses
from std_msgs.msg import Header
from test_people import people_at
from tf2_msgs.msg import TFMessage

from metrabs_ros.conversions.people import to_message
from metrabs_ros.drawing import color_of
from metrabs_ros.foreign_text import printable
from metrabs_ros.msg import ImagePoint, Skeleton, SkeletonArray
from metrabs_ros.node import view_node
from metrabs_ros.node.callback_failures import GuardedExecutor
from metrabs_ros.node.generated_messages import TYPES
from metrabs_ros.node.latched_topics import LATCHED
from metrabs_ros.node.transform_store import MAX_FRAMES
from metrabs_ros.node.view_node import MAX_ROWS, MAX_STATUSES, ViewNode
from metrabs_ros.view.scene import FUSED, Scene

LEFT_MM, RIGHT_MM = (-1000, 0, 5000), (1000, 0, 5000)
GREY = np.full((240, 320, 3), 128, np.uint8)
SPACE = (slice(80, 640), slice(0, 950))
"""Region of the 3D view on the page, as row and column slices."""
HUE_TOLERANCE = 0.05


def colored_pixels(picture, person_id):
    """Return the pixels [P, 2], x and y, with the hue of a person at any brightness."""
    colors = picture.astype(float) / 255
    brightness = colors.max(axis=-1)
    hue_rgb = np.array(color_of(person_id))
    shade = colors / np.maximum(brightness, 1e-9)[..., None]
    near = np.abs(shade - hue_rgb / hue_rgb.max()).max(axis=-1) < HUE_TOLERANCE
    rows, columns = np.nonzero(near & (brightness > 0.5))
    return np.stack([columns, rows], axis=-1)


def pixels_of_both_people(picture):
    """Return the pixels of both people in the 3D view, or None if they are not visible."""
    found = [colored_pixels(picture[SPACE], person_id) for person_id in (1, 2)]
    return found if min(len(pixels) for pixels in found) > 100 else None


@pytest.mark.slow
def test_skeletons_are_shown_at_their_positions(tmp_path):
    with pose_node(KnownPeople(LEFT_MM, RIGHT_MM)) as (_, robot):
        scene = Scene([''], is_live=True)
        address = scene.serve(*free_ports(2))
        view = ViewNode(scene, [''], compressed=False)
        executor = GuardedExecutor()
        executor.add_node(view)
        spin_thread = threading.Thread(target=executor.spin)
        spin_thread.start()
        done = threading.Event()
        sending = threading.Thread(target=send_until, args=(robot, done))
        sending.start()
        try:
            with open_page(address) as page:
                left, right = wait_for_screenshot(
                    page, pixels_of_both_people, tmp_path / 'page.png'
                )
        finally:
            done.set()
            sending.join()
            executor.shutdown()
            spin_thread.join()
            view.destroy_node()
    # Seen from the camera, they are side by side, and each is taller than wide.
    assert np.median(left[:, 0]) < np.median(right[:, 0]) - 30
    assert abs(np.median(left[:, 1]) - np.median(right[:, 1])) < 40
    for pixels in (left, right):
        width, height = np.ptp(np.percentile(pixels, (5, 95), axis=0), axis=0)
        assert height > width


class FakeScene:
    """Scene that records the calls."""

    def __init__(self):
        self.people = {}
        self.people_on_images = {}
        self.z_up = []
        self.said = []

    def set_z_up(self, z_up):
        self.z_up.append(z_up)

    def show_people(self, stamp_s, name, people):
        self.people[name] = people

    def show_people_on_image(self, stamp_s, name, people):
        self.people_on_images[name] = people

    def show_status(self, text):
        self.said.append(text)

    def show_image(self, *arguments):
        pass

    show_camera = show_frames = plot = show_image


@pytest.fixture
def view():
    """Return a function that creates the node with a fake scene."""
    rclpy.init()
    nodes = []

    def make(*cameras, is_fused=False):
        nodes.append(ViewNode(FakeScene(), cameras, False, is_fused))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown()


def skeletons_in(frame_id):
    return to_message(people_at((0, 0, 3000)), Header(frame_id=frame_id), TYPES)


def test_people_of_several_cameras_are_shown_in_the_frame_of_the_first(view):
    node = view('front', 'rear')
    behind = transform('front_frame', 'rear_frame', (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, -1.0))
    node._buffer.set_transform_static(behind, 'test')
    front, rear = node._views
    front._on_skeletons(skeletons_in('front_frame'))
    rear._on_skeletons(skeletons_in('rear_frame'))
    shown = node.scene.people
    np.testing.assert_allclose(shown['front'].positions_mm, [[0, 0, 3000]], atol=1e-3)
    np.testing.assert_allclose(shown['rear'].positions_mm, [[0, 0, -4000]], atol=1e-3)
    rear._on_skeletons(skeletons_in('unknown_frame'))
    assert len(node.scene.people['rear']) == 0


def test_fused_people_are_shown_once_and_those_of_cameras_on_their_images(view):
    node = view('front', 'rear', is_fused=True)
    front, rear, fused = node._views
    front._on_skeletons(skeletons_in('front_frame'))
    rear._on_skeletons(skeletons_in('rear_frame'))
    fused._on_skeletons(skeletons_in('map'))
    assert list(node.scene.people) == [FUSED]
    assert len(node.scene.people[FUSED]) == 1
    assert sorted(node.scene.people_on_images) == ['front', 'rear']
    assert node.scene.z_up == [True]
    assert node._root == 'map'
    message = skeletons_in('map')
    message.joint_names = []
    fused._on_skeletons(message)
    assert len(node.scene.people[FUSED]) == 1


def test_people_in_another_frame_than_the_images_have_z_up(view):
    node = view('')
    image = Image()
    image.header.frame_id = 'camera'
    node._views[0]._on_image(image)
    node._views[0]._on_skeletons(skeletons_in('camera'))
    node._views[0]._on_skeletons(skeletons_in('map'))
    assert node.scene.z_up == [False, True]


def test_inconsistent_skeletons_are_not_shown(view):
    node = view('')
    message = skeletons_in('camera')
    message.skeletons[0].positions = message.skeletons[0].positions[:5]
    node._views[0]._on_skeletons(message)
    assert len(node.scene.people['']) == 0


def test_missing_messages_are_reported(view):
    node = view('')
    node._check()
    assert node.scene.said[-1].startswith('no messages received on /image and /pose/skeletons')
    node._views[0]._on_image(Image())
    node._check()
    assert node.scene.said[-1].startswith('images received, but no skeletons')


def test_messages_are_shown_while_simulated_time_stands_still(view):
    node = view('')
    node.set_parameters([Parameter('use_sim_time', value=True)])
    with spinning(node):
        wait_for(lambda: node.scene.said)


def test_a_latched_camera_info_is_received(view):
    camera = Node('camera')
    camera.create_publisher(CameraInfo, 'camera_info', LATCHED).publish(CameraInfo(width=7))
    node = view('')
    try:
        with spinning(node):
            wait_for(lambda: node._views[0]._info)
    finally:
        camera.destroy_node()


def statuses(*values, name='pose: frames', message='', level=DiagnosticStatus.OK):
    pairs = [KeyValue(key=key, value=value) for key, value in values]
    status = DiagnosticStatus(name=name, message=message, level=level, values=pairs)
    return DiagnosticArray(status=[status])


MARKUP = ['![](http://evil/x.png)', '[x](http://evil)', '<img src=x>', 'a | b\nc', '`x` **y** # z']


@pytest.mark.parametrize('text', MARKUP)
def test_diagnostics_are_escaped(view, text):
    node = view('')
    node._on_diagnostics(statuses((text, text), message=text))
    node._check()
    shown = node.scene.said[-1]
    table = shown[shown.index('| | |') :].splitlines()
    assert len(table) == 3
    assert table[2].count('|') == 3
    for markup in ('](', '![', '<', '`', '# '):
        assert markup not in shown
    key, value = table[2].strip('| ').split(' | ')
    assert html.unescape(key) == html.unescape(value) == printable(text)


def test_the_length_of_diagnostics_is_limited(view):
    node = view('')
    node._on_diagnostics(
        statuses(*((f'{i}' * 10_000, 'x' * 10_000) for i in range(5000)), message='y' * 100_000)
    )
    node._check()
    assert len(node.scene.said[-1]) < 20_000
    assert f'and {5000 - MAX_ROWS} more' in node.scene.said[-1]


def test_many_diagnostics_are_processed_quickly(view):
    values = [KeyValue(key='|' * 80, value='|' * 80)] * MAX_ROWS
    many = [DiagnosticStatus(name='pose: frames', values=values)] * 1000
    last = DiagnosticStatus(name='pose: frames', message='the last one')
    node = view('')
    start_s = time.process_time()
    for _ in range(2):
        node._on_diagnostics(DiagnosticArray(status=many))
    node._on_diagnostics(DiagnosticArray(status=[*many, last]))
    assert time.process_time() - start_s < 1
    node._check()
    assert 'the last one' in node.scene.said[-1]
    others = [DiagnosticStatus(name='other')] * MAX_STATUSES
    node._on_diagnostics(DiagnosticArray(status=[many[0], *others]))
    node._check()
    assert 'the last one' in node.scene.said[-1]


def test_the_diagnostics_of_the_fusion_are_shown_with_fused_people(view):
    own = statuses(('camera1', 'misses people'), name='fusion: people', message='2 people')
    node = view('front', is_fused=True)
    node._on_diagnostics(own)
    node._on_diagnostics(statuses(message='20 frames per second'))
    node._check()
    for text in ('2 people', 'misses people', '20 frames per second'):
        assert text in node.scene.said[-1]
    alone = view('front')
    alone._on_diagnostics(own)
    alone._check()
    assert '2 people' not in alone.scene.said[-1]


def test_failing_callbacks_are_counted_and_the_node_continues(view):
    node, sender = view(''), Node('sender')

    def fail(*arguments):
        raise RuntimeError('failed on purpose')

    node.scene.show_people = fail
    publisher = sender.create_publisher(SkeletonArray, 'pose/skeletons', 10)
    try:
        with spinning(node, sender):
            for least in (1, 2):
                wait_for(
                    lambda least=least: (
                        publisher.publish(skeletons_in('camera')) or node.failures.count >= least
                    )
                )
    finally:
        sender.destroy_node()


def malformed_skeletons():
    """Yield malformed messages with a description of the error."""
    nan, inf = float('nan'), float('inf')

    def changed(**changes):
        message = skeletons_in('camera')
        for name, value in changes.items():
            setattr(message if hasattr(message, name) else message.skeletons[0], name, value)
        return message

    count = len(skeletons_in('camera').joint_names)
    yield 'no joints', changed(joint_names=[])
    yield 'bones of joints that are not there', changed(joint_edges=[0, 60000])
    yield 'half a bone', changed(joint_edges=[0, 1, 2])
    yield 'many joints', changed(joint_names=['x'] * 5000)
    for field in ('positions', 'velocities', 'image_points', 'confidences', 'in_view'):
        yield (
            f'too few {field}',
            changed(**{field: getattr(skeletons_in('').skeletons[0], field)[:3]}),
        )
        yield f'no {field}', changed(**{field: []})
    for number in (nan, inf, -inf, 1e308):
        yield f'positions {number}', changed(positions=[Point(x=number)] * count)
        yield f'velocities {number}', changed(velocities=[Vector3(x=number)] * count)
        small = number if abs(number) != 1e308 else 3e38
        yield f'image points {number}', changed(image_points=[ImagePoint(x=small)] * count)
        yield f'box {number}', changed(box_left=small, box_width=small)
        yield f'age {number}', changed(age=small, confidence=small)
    yield 'a stamp before all time', changed(header=Header(stamp=Time(sec=-(2**31))))
    yield 'odd nanoseconds', changed(header=Header(stamp=Time(nanosec=2**32 - 1)))
    yield 'an odd frame', changed(header=Header(frame_id='/../\x1b[31m' + 'x' * 100_000))
    many = skeletons_in('camera')
    many.skeletons = [many.skeletons[0]] * 2000
    yield 'many people', many


def oversized_skeletons():
    """Yield messages that would take seconds to convert, with a description."""
    message = skeletons_in('camera')
    message.joint_names, message.joint_edges = ['x'] * 1000, []
    message.skeletons = [
        Skeleton(
            positions=[Point(z=3.0)] * 1000,
            image_points=[ImagePoint()] * 1000,
            confidences=[1.0] * 1000,
            in_view=[True] * 1000,
        )
    ] * 1000
    yield 'many joints of many people', message
    message = skeletons_in('camera')
    message.joint_edges = [0, 1] * 10_000
    message.skeletons = [message.skeletons[0]] * 1000
    yield 'many bones of many people', message
    message = skeletons_in('camera')
    message.skeletons[0].velocities = [Vector3()] * 1_000_000
    yield 'many velocities', message


def odd_images():
    yield 'empty', Image()
    yield 'no data', Image(height=100, width=100, step=300, encoding='rgb8')
    yield 'huge', Image(height=16000, width=16000, step=16000, encoding='mono8')
    yield 'odd encoding', Image(height=1, width=1, step=1, encoding='\x1b' * 10_000, data=[0])
    yield 'overflow', Image(height=2**32 - 1, width=2**32 - 1, step=2**32 - 1, encoding='rgb8')


def odd_infos():
    nan = float('nan')
    yield 'empty', CameraInfo()
    yield 'not a number', CameraInfo(k=[nan] * 9, width=64, height=48)
    yield 'singular', CameraInfo(k=[1e300, 0, 0, 0, 1e-300, 0, 0, 0, 1.0], width=64, height=48)
    yield 'odd model', CameraInfo(k=[1.0] * 9, distortion_model='x' * 100_000)
    yield 'long', CameraInfo(k=[50.0, 0, 32, 0, 50, 24, 0, 0, 1], d=[0.1] * 10_000)


def test_malformed_messages_do_not_end_the_node(tmp_path):
    """Publish malformed messages over DDS, and then valid ones, which are shown."""
    rclpy.init()
    scene = Scene([''], is_live=True)
    scene.save(str(tmp_path / 'scene.rrd'))
    view = ViewNode(scene, [''], compressed=False)
    sender = Node('sender')
    try:
        with spinning(view, sender):
            publish = {
                kind: sender.create_publisher(kind, topic, 100)
                for kind, topic in (
                    (Image, 'image'),
                    (CameraInfo, 'camera_info'),
                    (SkeletonArray, 'pose/skeletons'),
                    (DiagnosticArray, '/diagnostics'),
                    (TFMessage, '/tf'),
                )
            }
            for publisher in publish.values():
                wait_for(publisher.get_subscription_count)
            grey = Image(height=2, width=2, step=6, encoding='rgb8', data=bytes(12))
            for _, info in odd_infos():
                publish[CameraInfo].publish(info)
                publish[Image].publish(grey)
                publish[SkeletonArray].publish(skeletons_in('camera'))
            for _, image in odd_images():
                publish[Image].publish(image)
                publish[SkeletonArray].publish(skeletons_in('camera'))
            for _, message in malformed_skeletons():
                publish[SkeletonArray].publish(message)
            publish[DiagnosticArray].publish(statuses(('\x1b', '|'), level=b'\xff'))
            for i in range(50):
                links = [transform(f'p{i}_{j}', f'c{i}_{j}') for j in range(100)]
                publish[TFMessage].publish(TFMessage(transforms=links))
            # The last message is shown.
            last = statuses(message='the last one')
            publisher = publish[DiagnosticArray]
            wait_for(lambda: publisher.publish(last) or 'last one' in str(view._statuses))
            shown_s = view._views[0]._people_shown_s
            wait_for(
                lambda: (
                    publish[SkeletonArray].publish(skeletons_in('camera'))
                    or view._views[0]._people_shown_s > shown_s
                )
            )
            assert len(view._buffer.names()) <= 2 * MAX_FRAMES
    finally:
        view._listener.unregister()
        view.destroy_node()
        sender.destroy_node()
        rclpy.shutdown()


@pytest.mark.parametrize(
    'message', [pytest.param(m, id=kind.replace(' ', '_')) for kind, m in malformed_skeletons()]
)
def test_malformed_skeletons_are_ignored(view, message):
    node = view('')
    node.scene = Scene([''], is_live=True)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        node._views[0]._on_skeletons(message)
    node._views[0]._on_skeletons(skeletons_in('camera'))
    assert np.isfinite(node._views[0]._people_shown_s)


@pytest.mark.parametrize(
    'message', [pytest.param(m, id=kind.replace(' ', '_')) for kind, m in oversized_skeletons()]
)
def test_oversized_skeletons_are_rejected_quickly(view, message):
    node = view('')
    start_s = time.process_time()
    node._views[0]._on_skeletons(message)
    assert time.process_time() - start_s < 0.15
    assert not any(len(people) for people in node.scene.people.values())


def jpeg(width, height, data=b''):
    """Return a JPEG image with a given size in its header."""
    frame = b'\xff\xc0\x00\x11\x08' + height.to_bytes(2, 'big') + width.to_bytes(2, 'big')
    return b'\xff\xd8' + frame + bytes(10) + data


@pytest.mark.parametrize(
    'data',
    [
        jpeg(30000, 30000),
        jpeg(0, 0),
        b'',
        b'\xff\xd8\xff',
        b'GIF89a' + bytes(100),
        b'\x89PNG\r\n\x1a\n' + bytes(8) + b'\xff' * 8,
        b'BM' + bytes(100),
    ],
)
def test_invalid_and_huge_image_files_are_not_shown(view, data):
    node = view('')
    shown = []
    node.scene.show_image = lambda *arguments: shown.append(arguments)
    camera = node._views[0]
    camera._on_info(CameraInfo(width=64, height=48, k=[50.0, 0, 32, 0, 50, 24, 0, 0, 1]))
    camera._show_image(CompressedImage(format='jpeg', data=data))
    assert shown == []
    _, whole = cv2.imencode('.jpg', GREY)
    camera._show_image(CompressedImage(format='jpeg', data=whole.tobytes()))
    assert shown[0][2] == whole.tobytes()


def test_the_memory_of_buffered_images_is_limited(view, monkeypatch):
    monkeypatch.setattr(view_node, 'MAX_BUFFERED_BYTES', 1000)
    camera = view('')._views[0]
    for i in range(100):
        image = Image(data=bytes(400))
        image.header.stamp.sec = i
        camera._on_image(image)
    assert [image.header.stamp.sec for image in camera._images.values()] == [98, 99]
    camera._on_image(Image(data=bytes(5000)))
    assert len(camera._images) == 1


def send_until(robot, event):
    """Publish images until the event is set."""
    while not event.wait(0.2):
        robot.send(GREY)


def test_a_used_port_is_reported():
    with socket.socket() as taken:
        taken.bind(('0.0.0.0', 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f'port {port} is in use'):
            Scene(['']).serve(port, free_ports(1)[0])


@pytest.mark.parametrize('names', [['a b'], ['front/'], ['front', 'front']])
def test_invalid_camera_names_are_reported(capsys, names):
    assert view_node.run(['view', '--cameras', *names]) == 1
    error = capsys.readouterr().err
    assert error.startswith('view: --cameras ')
    assert error.count('\n') == 1


@pytest.mark.slow
def test_the_process_prints_its_address_and_exits_immediately():
    web, data = free_ports(2)
    process = subprocess.Popen(
        [
            *(sys.executable, '-m', 'metrabs_ros.cli', 'view', '--camera', '/front'),
            *('--web-port', str(web), '--data-port', str(data)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        line = next(line for line in process.stdout if 'view: open' in line)
        assert f'http://127.0.0.1:{web}/?url=' in line
        pids = [process.pid, *descendant_pids(process.pid)]
        found = listening_addresses(pids)
        assert {port for _, port in found} == {web, data}
        assert all(address.is_loopback for address, _ in found), found
        assert '/front/image_raw' in line
        process.send_signal(signal.SIGINT)
        rest, _ = communicate_with_stall_timeout(process)
    finally:
        process.kill()
    assert process.returncode == 0
    assert 'Traceback' not in rest
