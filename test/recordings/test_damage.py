"""Damaged bags are read in part, or rejected with a message."""

from __future__ import annotations

import json
import pathlib
import shutil
import struct
import subprocess
import sys

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from known_people import KnownPeople
from recorded_bags import SQLITE, write_bag, write_ros1_bag
from rosbags import rosbag1
from rosbags.rosbag2 import CompressionMode

from metrabs_ros.recordings.annotate import annotate
from metrabs_ros.recordings.bags import UnreadableRecording
from metrabs_ros.recordings.options import AnnotateOptions

WRITERS = {
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
    'ROS 1': lambda path, images: write_ros1_bag(path.with_suffix('.bag'), images),
    **{
        f'ROS 1 in {compression.name}': lambda path, images, compression=compression: (
            write_ros1_bag(path.with_suffix('.bag'), images, compression=compression)
        )
        for compression in rosbag1.Writer.CompressionFormat
    },
}
FRAMES = 5
VARIANTS = 25
LARGE_NUMBERS = (
    *(b'\xff' * 4, b'\xff' * 8, struct.pack('<Q', 2**31), struct.pack('<Q', 2**40)),
    *(struct.pack('<I', 2**30), b'\0' * 8, struct.pack('>I', 2**31 - 1)),
)
MAX_CPU_S = 10.0


@pytest.fixture(scope='module', params=list(WRITERS))
def bag(request, tmp_path_factory):
    """Return a bag and the file that has its messages."""
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, (60, 80, 3), np.uint8) for _ in range(FRAMES)]
    path = WRITERS[request.param](tmp_path_factory.mktemp('whole') / 'bag', images)
    return path, path if path.is_file() else next(f for f in path.iterdir() if 'bag' in f.name)


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
    share=st.floats(0, 1),
    flips=st.lists(st.tuples(st.floats(0, 0.9999), st.integers(0, 255)), max_size=6),
)
def test_truncated_and_corrupted_bags_are_read_or_rejected(bag, tmp_path_factory, share, flips):
    path, file = bag
    folder = tmp_path_factory.mktemp('damaged')
    damaged = folder / path.name
    if path.is_dir():
        shutil.copytree(path, damaged)
        file = damaged / file.name
    else:
        file = shutil.copy(path, damaged)
    data = bytearray(file.read_bytes())
    for place, value in flips:
        data[int(place * len(data))] = value
    file.write_bytes(data[: round((0.2 + 0.8 * share) * len(data))])
    options, model = AnnotateOptions(fov_degrees=60.0), KnownPeople((0, 0, 3000))
    try:
        summary = annotate(damaged, folder / 'people', options, model, lambda message: None)
    except UnreadableRecording:
        return
    finally:
        shutil.rmtree(folder)
    assert summary.processed <= summary.frames <= FRAMES


@pytest.mark.slow
def test_corrupted_lengths_take_bounded_memory_and_time(bag, tmp_path):
    """Write large numbers at positions of lengths, and read the files with limited memory."""
    path, file = bag
    whole = file.read_bytes()
    rng = np.random.default_rng(1)
    damaged = []
    for i in range(VARIANTS):
        copy = tmp_path / str(i) / path.name
        if path.is_dir():
            shutil.copytree(path, copy)
            target = copy / file.name
        else:
            copy.parent.mkdir()
            target = copy
        data = bytearray(whole)
        # Most lengths are in headers at the start and in the index at the end.
        for _ in range(3):
            place = int(len(data) * rng.random() ** 3)
            place = place if rng.random() < 0.5 else len(data) - 1 - place
            number = LARGE_NUMBERS[rng.integers(len(LARGE_NUMBERS))]
            data[place : place + len(number)] = number
        target.write_bytes(data)
        damaged.append(copy)
    found = subprocess.run(
        [sys.executable, str(pathlib.Path(__file__).parent / 'annotate_all.py')],
        input=''.join(json.dumps(str(copy)) + '\n' for copy in damaged),
        capture_output=True,
        text=True,
        timeout=300,
    )
    outcomes = [json.loads(line) for line in found.stdout.splitlines()]
    assert len(outcomes) == VARIANTS, found.stderr
    for outcome in outcomes:
        assert not outcome['unexpected'], outcome
        assert outcome['cpu_s'] < MAX_CPU_S
        assert all(message.isprintable() for message in outcome['messages'])
