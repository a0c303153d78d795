"""The three processes of the demo process real images, exit on their own, and report errors."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest
import rclpy
from conftest import DATA
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from progress import (
    communicate_with_stall_timeout,
    descendant_pids,
    run_with_stall_timeout,
    wait_for_exit,
)
from rclpy.node import Node
from robots import spinning, wait_for
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from test_people import people_at

from metrabs_ros.conversions.people import to_message
from metrabs_ros.demo import OUTPUTS, STOP_SIGNALS, VIDEO, run
from metrabs_ros.msg import SkeletonArray
from metrabs_ros.node import demo_camera, demo_viewer
from metrabs_ros.node.generated_messages import TYPES
from metrabs_ros.node.heartbeat import MAX_IDLE_REPORTS
from metrabs_ros.recordings.image_files import Source, UnusableSource

PROJECT = pathlib.Path(__file__).parents[2]


def demo(*arguments):
    command = [sys.executable, '-m', 'metrabs_ros.cli', 'demo', *arguments]
    return run_with_stall_timeout(command, cwd=PROJECT)


@pytest.fixture
def footage(tmp_path):
    """Return a folder with several copies of one image."""
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for i in range(6):
        shutil.copy(DATA / 'street.png', folder / f'{i}.png')
    return folder


def test_the_demo_ends_with_a_summary_a_video_and_a_plot(footage, tmp_path):
    result = demo('--input', footage, '--output', tmp_path / 'out')
    assert result.returncode == 0, result.stderr
    last = result.stdout.strip().splitlines()[-1]
    assert re.fullmatch(
        r'demo: 6 frames, \d+\.\d people per frame, \d+\.\d frames per second, '
        r'wrote \S+annotated.mp4',
        last,
    )
    assert re.search(r'viewer: \d+: \d+\.\d m, \d\.\d\d m tall', result.stdout)
    video = cv2.VideoCapture(str(tmp_path / 'out' / 'annotated.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 6
    assert cv2.imread(str(tmp_path / 'out' / 'birds_eye.png')).shape == (800, 800, 3)


@pytest.mark.slow
def test_the_demo_fails_without_detections(tmp_path):
    cv2.imwrite(str(tmp_path / 'grey.png'), np.full((240, 320, 3), 90, np.uint8))
    (tmp_path / 'pictures').mkdir()
    (tmp_path / 'grey.png').rename(tmp_path / 'pictures' / 'grey.png')
    result = demo('--input', tmp_path / 'pictures', '--output', tmp_path / 'out')
    assert result.returncode == 1
    assert 'demo: 1 frames, 0.0 people per frame' in result.stdout


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('missing.avi', 'does not exist'),
        ('/dev/video99', 'the device /dev/video99 does not exist'),
        ('README.md', 'cannot be read as a video'),
    ],
)
def test_unreadable_sources_are_reported_in_one_line(name, expected, tmp_path):
    result = demo('--input', name, '--output', tmp_path)
    assert result.returncode == 1
    assert expected in result.stderr
    assert 'Traceback' not in result.stderr


@pytest.mark.parametrize(
    'sent', [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_the_summary_is_printed_after_an_interrupt(tmp_path, sent):
    process = subprocess.Popen(
        [
            *(sys.executable, '-u', '-m', 'metrabs_ros.cli', 'demo', '--rate', '5'),
            *('--input', str(DATA / 'street.png'), '--output', str(tmp_path / 'out')),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=PROJECT,
        env=os.environ,
    )
    lines = []
    for line in process.stdout:
        lines.append(line)
        if 'the first frame was received' in line:
            process.send_signal(sent)
    assert wait_for_exit(process) == 0, lines
    assert lines[-1].startswith('demo: '), lines
    assert not any('Traceback' in line for line in lines), lines


def test_the_viewer_subscribes_to_images_after_discovering_the_pose_node(tmp_path):
    rclpy.init()
    camera = Node('camera')
    images = camera.create_publisher(Image, 'image', 10)
    module = [sys.executable, '-m', 'metrabs_ros.node.demo_viewer']
    viewer = subprocess.Popen([*module, '--output', tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: camera.count_subscribers('skeletons'))
        time.sleep(1)
        assert images.get_subscription_count() == 0
        skeletons = camera.create_publisher(SkeletonArray, 'skeletons', 10)
        wait_for(images.get_subscription_count)
        wait_for(skeletons.get_subscription_count)
        header = Header(frame_id='camera')
        images.publish(
            Image(height=2, width=2, step=6, encoding='bgr8', data=12 * b'0', header=header)
        )
        skeletons.publish(to_message(people_at((0, 0, 3000)), header, TYPES))
        # Fast DDS may print warnings before.
        assert any('the first frame' in line for line in viewer.stdout)
        viewer.terminate()
        assert 'demo: 1 frames' in communicate_with_stall_timeout(viewer)[0]
    finally:
        viewer.kill()
        camera.destroy_node()
        rclpy.shutdown()


def test_images_of_different_sizes_are_published_and_shown(footage, tmp_path):
    rclpy.init()
    viewer = demo_viewer.ViewerNode(tmp_path / 'out', 10.0)
    camera = demo_camera.CameraNode(Source(str(footage)), None, 55.0, 30.0)
    receiver, infos = Node('receiver'), []
    receiver.create_subscription(CameraInfo, 'camera_info', infos.append, 10)
    try:
        with spinning(receiver):
            wait_for(camera._infos.get_subscription_count)
            for number, shape in enumerate([(120, 160, 3), (80, 60, 3), (120, 160, 3)]):
                camera._publish(np.zeros(shape, np.uint8))
                wait_for(lambda number=number: len(infos) > number)
                people = to_message(people_at((0, 0, 3000)), infos[-1].header, TYPES)
                viewer._on_pair(image_message(shape), people)
        assert [(info.height, info.width) for info in infos] == [(120, 160), (80, 60), (120, 160)]
        assert viewer.finish() == 0
    finally:
        for node in (viewer, camera, receiver):
            node.destroy_node()
        rclpy.shutdown()
    assert cv2.VideoCapture(str(tmp_path / 'out' / VIDEO)).get(cv2.CAP_PROP_FRAME_COUNT) == 3


def image_message(shape):
    height, width = shape[:2]
    message = Image(height=height, width=width, step=3 * width, encoding='bgr8')
    message.data = bytes(3 * width * height)
    return message


def start_demo(tmp_path, *options):
    """Start a demo that runs for at least ten seconds."""
    return subprocess.Popen(
        [
            *(sys.executable, '-u', '-m', 'metrabs_ros.cli', 'demo', '--rate', '5', *options),
            *('--input', str(DATA / 'street.png'), '--output', str(tmp_path / 'out')),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=PROJECT,
    )


def commands_below(process):
    """Return the commands of all descendants of a process, by process id."""
    commands = {}
    for pid in descendant_pids(process.pid):
        try:
            text = pathlib.Path(f'/proc/{pid}/cmdline').read_bytes().replace(b'\0', b' ').decode()
        except OSError:
            continue
        if text:
            commands[pid] = text
    return commands


def has_ended(pid):
    try:
        state = pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
    except OSError:
        return True
    return state in 'ZX'


@pytest.mark.slow
@pytest.mark.parametrize(
    ('sent', 'moment'),
    [
        *((sent, 'node.pose_node') for sent in (signal.SIGINT, signal.SIGTERM)),
        *((sent, 'node.demo_camera') for sent in (*STOP_SIGNALS, signal.SIGKILL)),
        # A short-lived process of the view.
        (signal.SIGKILL, 'rerun.*--bind'),
    ],
)
def test_no_process_is_left_after_any_signal(tmp_path, sent, moment):
    if 'rerun' in moment:
        rerun = pytest.importorskip('rerun')
        if (pathlib.Path(rerun.__file__).parent / 'web_viewer.zip').exists():
            pytest.skip('this release of rerun-sdk has the viewer in an archive')
    process = start_demo(tmp_path, *(['--view'] if 'rerun' in moment else []))
    try:
        wait_for(lambda: any(re.search(moment, text) for text in commands_below(process).values()))
        below = list(commands_below(process))
        process.send_signal(sent)
        output, _ = communicate_with_stall_timeout(process)
        wait_for(lambda: all(has_ended(pid) for pid in below))
    finally:
        process.kill()
    assert 'Traceback' not in output


@pytest.mark.slow
@pytest.mark.parametrize('name', ['pose', 'demo_camera', 'demo_viewer'])
def test_a_crashed_process_is_named_and_ends_the_demo(tmp_path, name):
    process = start_demo(tmp_path)
    try:
        line = next(line for line in process.stdout if 'the first frame was received' in line)
        (pid,) = (pid for pid, text in commands_below(process).items() if f'.{name}' in text)
        os.kill(pid, signal.SIGSEGV)
        output, _ = communicate_with_stall_timeout(process)
    finally:
        process.kill()
    assert process.returncode == 1, line + output
    assert f'the {name.removeprefix("demo_")} process was terminated by SIGSEGV' in output


IGNORE_SIGNALS = """
import os, signal
from metrabs_ros.demo import catch_stop_signals

signal.signal(signal.SIGHUP, signal.SIG_IGN)
with catch_stop_signals() as stop:
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    os.kill(os.getpid(), signal.SIGHUP)
    assert not stop.is_requested
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.is_requested
    assert not stop.is_urgent()
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.is_urgent()
"""


def test_ignored_signals_remain_ignored():
    # In a process of its own, because signals can end a process with other handlers.
    done = subprocess.run([sys.executable, '-c', IGNORE_SIGNALS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_an_unwritable_output_is_reported_before_the_start(footage, tmp_path):
    (tmp_path / 'file').write_text('')
    for output in (tmp_path / 'file', tmp_path / 'file' / 'below', '/proc/nowhere'):
        result = demo('--input', footage, '--output', output)
        assert result.returncode == 1
        assert len(result.stderr.splitlines()) == 1
        assert f'output {output} ' in result.stderr


def files_below(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_the_demo_does_not_overwrite_its_input_video(tmp_path):
    video = tmp_path / 'annotated.mp4'
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*'mp4v'), 10, (64, 64))
    writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()
    before = files_below(tmp_path)
    result = demo('--input', video, '--output', tmp_path)
    assert result.returncode == 1
    assert f'the demo would replace {video}' in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert files_below(tmp_path) == before


@pytest.mark.parametrize(
    ('source', 'output'),
    [
        ('out/annotated.mp4', 'out'),
        ('out/annotated.mp4', 'link_to_out'),
        ('link_to_video.mp4', 'out'),
        ('clip.mp4', 'has_link'),
        ('out/birds_eye.png', 'pictures/../out'),
        ('pictures', 'pictures'),
        ('pictures', 'pictures/new/below'),
        ('pictures', 'link_to_pictures/new'),
        ('link_to_pictures', 'pictures'),
        ('has_picture_of_out', 'out'),
    ],
)
def test_an_output_that_overwrites_the_input_is_rejected(tmp_path, source, output):
    for name in ('out', 'pictures', 'has_link', 'has_picture_of_out'):
        (tmp_path / name).mkdir()
    for name in ('out/annotated.mp4', 'out/birds_eye.png', 'clip.mp4', 'pictures/1.png'):
        (tmp_path / name).write_bytes(name.encode())
    for link, target in (
        ('link_to_out', 'out'),
        ('link_to_video.mp4', 'out/annotated.mp4'),
        ('has_link/annotated.mp4', '../clip.mp4'),
        ('link_to_pictures', 'pictures'),
        ('has_picture_of_out/1.png', '../out/birds_eye.png'),
    ):
        (tmp_path / link).symlink_to(target)
    before = files_below(tmp_path)
    with pytest.raises(ValueError, match='give another --output'):
        run(tmp_path / source, tmp_path / output, [], 10.0)
    assert files_below(tmp_path) == before
    assert not (tmp_path / 'pictures' / 'new').exists()


def test_a_folder_with_the_name_of_an_output_file_is_reported(footage, tmp_path):
    for name in OUTPUTS:
        (tmp_path / name / name).mkdir(parents=True)
        with pytest.raises(OSError, match=f'{name} is a folder'):
            run(footage, tmp_path / name, [], 10.0)


@pytest.mark.slow
def test_the_viewer_replaces_links_and_existing_files_only_at_the_end(tmp_path):
    out = tmp_path / 'out'
    out.mkdir()
    (tmp_path / 'mine.mp4').write_bytes(b'mine')
    (out / 'annotated.mp4').symlink_to('../mine.mp4')
    (out / 'birds_eye.png').write_bytes(b'earlier')
    rclpy.init()
    camera = Node('camera')
    images = camera.create_publisher(Image, 'image', 10)
    skeletons = camera.create_publisher(SkeletonArray, 'skeletons', 10)
    module = [sys.executable, '-m', 'metrabs_ros.node.demo_viewer']
    viewer = subprocess.Popen([*module, '--output', out], stdout=subprocess.PIPE, text=True)
    try:
        wait_for(images.get_subscription_count)
        wait_for(skeletons.get_subscription_count)
        header = Header(frame_id='camera')
        pixels = 64 * 64 * 3 * b'0'
        images.publish(
            Image(height=64, width=64, step=192, encoding='bgr8', data=pixels, header=header)
        )
        skeletons.publish(to_message(people_at((0, 0, 3000)), header, TYPES))
        # Fast DDS may print warnings before.
        assert any('the first frame' in line for line in viewer.stdout)
        assert (out / 'annotated.mp4').is_symlink()
        assert (out / 'birds_eye.png').read_bytes() == b'earlier'
        viewer.terminate()
        assert f'wrote {out}/annotated.mp4' in communicate_with_stall_timeout(viewer)[0]
    finally:
        viewer.kill()
        camera.destroy_node()
        rclpy.shutdown()
    assert viewer.returncode == 0
    assert (tmp_path / 'mine.mp4').read_bytes() == b'mine'
    assert sorted(os.listdir(out)) == sorted(OUTPUTS)
    assert not (out / 'annotated.mp4').is_symlink()
    assert cv2.VideoCapture(str(out / 'annotated.mp4')).read()[0]
    assert cv2.imread(str(out / 'birds_eye.png')) is not None


class FakePoseNode(Node):
    """Publishes skeletons and diagnostics under the control of a test."""

    def __init__(self):
        super().__init__('stand_in')
        self.images, self.dropped = [], 0
        self.answers = self.create_publisher(SkeletonArray, 'skeletons', 10)
        self.diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self.create_subscription(Image, 'image', self.images.append, 10)
        self.create_subscription(CameraInfo, 'camera_info', lambda info: None, 10)
        self.create_subscription(SkeletonArray, 'skeletons', lambda skeletons: None, 10)
        self.timer = self.create_timer(0.1, self.publish_diagnostics)

    def publish_diagnostics(self):
        values = {
            'images': len(self.images),
            'processed': 0,
            'dropped: image encoding': self.dropped,
        }
        status = DiagnosticStatus(name='pose: frames')
        status.values = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        self.diagnostics.publish(DiagnosticArray(status=[status]))

    def publish_skeletons(self):
        self.answers.publish(SkeletonArray(header=self.images[-1].header))


@pytest.fixture
def camera_and_fake_node(footage):
    rclpy.init()
    camera = demo_camera.CameraNode(Source(str(footage)), None, 55.0, 0.0)
    fake_node = FakePoseNode()
    with spinning(fake_node):
        yield camera, fake_node
    camera.destroy_node()
    fake_node.destroy_node()
    rclpy.shutdown()


def play_in_thread(camera):
    """Play in a thread; return a function that returns the number of images or the error."""
    result = []

    def play():
        try:
            result.append(camera.play(1))
        except UnusableSource as error:
            result.append(error)

    threading.Thread(target=play, daemon=True).start()
    return lambda: result and result[0]


@pytest.mark.slow
def test_the_camera_waits_while_the_pose_node_reports_pending_images(camera_and_fake_node):
    camera, fake_node = camera_and_fake_node
    result = play_in_thread(camera)
    wait_for(lambda: fake_node.images)
    # Longer than the timeout for images that are lost or finished.
    reports = camera._monitor.count
    wait_for(lambda: camera._monitor.count > reports + 3 * MAX_IDLE_REPORTS)
    assert len(fake_node.images) == 1
    for count in range(1, 7):
        wait_for(lambda count=count: len(fake_node.images) == count)
        fake_node.publish_skeletons()
    assert wait_for(result) == 6


@pytest.mark.slow
def test_the_camera_stops_without_diagnostics(camera_and_fake_node, monkeypatch):
    monkeypatch.setattr(demo_camera, 'DIAGNOSTICS_TIMEOUT_S', 1.5)
    camera, fake_node = camera_and_fake_node
    result = play_in_thread(camera)
    wait_for(lambda: fake_node.images)
    fake_node.timer.cancel()
    assert 'no diagnostics were received' in str(wait_for(result))


def test_the_camera_reports_the_cause_of_dropped_images(camera_and_fake_node):
    camera, fake_node = camera_and_fake_node
    result = play_in_thread(camera)

    def drop_and_get_result():
        fake_node.dropped = len(fake_node.images)
        return result()

    assert 'it drops images (image encoding)' in str(wait_for(drop_and_get_result))


@pytest.mark.slow
def test_an_unconfigured_pose_node_is_reported(camera_and_fake_node):
    camera, fake_node = camera_and_fake_node
    wait_for(camera._skeletons.get_publisher_count)
    # In the thread that spins the node, whose executor may be waiting for its publishers.
    fake_node.executor.create_task(fake_node.destroy_publisher, fake_node.answers)
    wait_for(lambda: not camera._skeletons.get_publisher_count())
    assert 'not configured' in str(wait_for(play_in_thread(camera)))
