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
from conftest import DATA

PROJECT = pathlib.Path(__file__).parents[2]


def demo(*arguments, timeout_s=90):
    return subprocess.run(
        [sys.executable, '-m', 'metrabs_ros.cli', 'demo', *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        timeout=timeout_s,
    )


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
            time.sleep(1)
            process.send_signal(sent)
    assert process.wait(20) == 0, lines
    assert lines[-1].startswith('demo: '), lines
    assert not any('Traceback' in line for line in lines), lines
