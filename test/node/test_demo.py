"""The demo's three processes run on real pictures, end by themselves, and say what is wrong."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
import rclpy
from conftest import DATA
from progress import end_of, output_while_it_progresses, run_while_it_progresses
from rclpy.node import Node
from robots import wait_for
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from test_people import people_at

from metrabs_ros.messages.people import to_message
from metrabs_ros.msg import SkeletonArray
from metrabs_ros.node.message_types import TYPES

PROJECT = pathlib.Path(__file__).parents[2]


def demo(*arguments):
    command = [sys.executable, '-m', 'metrabs_ros.cli', 'demo', *arguments]
    return run_while_it_progresses(command, cwd=PROJECT)


@pytest.fixture
def footage(tmp_path):
    """Return a folder of a few pictures of one street."""
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for i in range(6):
        shutil.copy(DATA / 'street.png', folder / f'{i}.png')
    return folder


def test_it_ends_by_itself_with_a_line_a_video_and_a_plot(footage, tmp_path):
    result = demo('--input', footage, '--output', tmp_path / 'out')
    assert result.returncode == 0, result.stderr
    last = result.stdout.strip().splitlines()[-1]
    assert re.fullmatch(
        r'demo: 6 frames, \d+\.\d people a frame, \d+\.\d frames a second, wrote \S+annotated.mp4',
        last,
    )
    assert re.search(r'viewer: \d+: \d+\.\d m, \d\.\d\d m tall', result.stdout)
    video = cv2.VideoCapture(str(tmp_path / 'out' / 'annotated.mp4'))
    assert video.get(cv2.CAP_PROP_FRAME_COUNT) == 6
    assert cv2.imread(str(tmp_path / 'out' / 'birds_eye.png')).shape == (800, 800, 3)


def test_it_fails_if_it_saw_nobody(tmp_path):
    cv2.imwrite(str(tmp_path / 'grey.png'), np.full((240, 320, 3), 90, np.uint8))
    (tmp_path / 'pictures').mkdir()
    (tmp_path / 'grey.png').rename(tmp_path / 'pictures' / 'grey.png')
    result = demo('--input', tmp_path / 'pictures', '--output', tmp_path / 'out')
    assert result.returncode == 1
    assert 'demo: 1 frames, 0.0 people a frame' in result.stdout


@pytest.mark.parametrize(
    ('name', 'says'),
    [
        ('missing.avi', 'there is no file or folder'),
        ('/dev/video99', 'there is no device /dev/video99'),
        ('README.md', 'cannot be read as a video'),
    ],
)
def test_sources_that_cannot_be_read_are_one_clear_line(name, says, tmp_path):
    result = demo('--input', name, '--output', tmp_path)
    assert result.returncode == 1
    assert says in result.stderr
    assert 'Traceback' not in result.stderr


@pytest.mark.parametrize('sent', [signal.SIGINT, signal.SIGTERM])
def test_interrupting_it_still_gives_the_summary(tmp_path, sent):
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
        if 'the first frame is there' in line:
            process.send_signal(sent)
    assert end_of(process) == 0, lines
    assert lines[-1].startswith('demo: '), lines
    assert not any('Traceback' in line for line in lines), lines


def test_the_viewer_takes_images_only_once_it_hears_the_pose_node(tmp_path):
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
        assert 'the first frame' in viewer.stdout.readline()
        viewer.terminate()
        assert 'demo: 1 frames' in output_while_it_progresses(viewer)[0]
    finally:
        viewer.kill()
        camera.destroy_node()
        rclpy.shutdown()
