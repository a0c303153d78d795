"""Each unusable input is reported in one line, and the other inputs are processed."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import socket
import struct
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from known_people import KnownPeople
from recorded_bags import CAMERA, START_NS, image_message, people_in, write_bag

from metrabs_ros import cli
from metrabs_ros.recordings import parallel
from metrabs_ros.recordings.annotate import annotate
from metrabs_ros.recordings.calibration import UnusableCalibration, read_calibration
from metrabs_ros.recordings.image_files import Source, UnusableSource
from metrabs_ros.recordings.options import MAX_CAUSES, AnnotateOptions, Summary

DECLARED_PX = 40_000
UNPRIVILEGED_ID = 65534


def encoded_image(suffix, size=(20, 30)):
    """Return an encoded image."""
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    # Without a quality, WebP is lossless and has a different header.
    options = (cv2.IMWRITE_WEBP_QUALITY, 80) if suffix == '.webp' else ()
    return cv2.imencode(suffix, image, options)[1].tobytes()


def with_chunk_checksum(png):
    return png[:29] + struct.pack('>I', zlib.crc32(png[12:29])) + png[33:]


def with_declared_size(suffix, px=DECLARED_PX):
    """Return an encoded image with a header that declares a huge size."""
    data = bytearray(encoded_image(suffix))
    if suffix == '.png':
        data[16:24] = struct.pack('>II', px, px)
        return with_chunk_checksum(bytes(data))
    if suffix == '.jpg':
        start = data.index(b'\xff\xc0')
        data[start + 5 : start + 9] = struct.pack('>HH', px, px)
    elif suffix == '.bmp':
        data[18:26] = struct.pack('<ii', px, px)
    elif suffix == '.tiff':
        for tag in (256, 257):
            entry = data.index(struct.pack('<HH', tag, 3))
            data[entry : entry + 12] = struct.pack('<HHII', tag, 4, 1, px)
    else:
        # Lossy WebP stores sizes in 14 bits.
        start = data.index(b'\x9d\x01\x2a')
        data[start + 3 : start + 7] = struct.pack('<HH', 16383, 16383)
    return bytes(data)


@pytest.fixture(autouse=True)
def known_people(monkeypatch):
    """Replace the model by one that needs no network."""
    people = KnownPeople((0, 0, 3000))
    monkeypatch.setattr(parallel, '_load_model', lambda options: people)


def run(capfd, *arguments):
    """Run a command; return its exit status and the lines of its error messages."""
    status = cli.main([*map(str, arguments)])
    captured = capfd.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith('metrabs_ros: ')]
    assert 'Traceback' not in captured.err
    return status, lines


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.bmp', '.tiff', '.webp'])
def test_an_image_file_with_a_huge_declared_size_is_rejected(tmp_path, capfd, suffix):
    huge, fine = tmp_path / f'huge{suffix}', tmp_path / 'fine.png'
    huge.write_bytes(with_declared_size(suffix))
    fine.write_bytes(encoded_image('.png'))
    status, (message,) = run(capfd, 'annotate', huge, fine, '-o', tmp_path / 'out')
    assert status == 1
    assert 'too large' in message
    assert str(huge) in message
    assert len(people_in(tmp_path / 'out' / 'fine_people')) == 1
    assert sorted(f.name for f in (tmp_path / 'out').iterdir()) == ['fine_people']


@pytest.mark.parametrize('suffix', ['.png', '.jpg', '.bmp', '.tiff', '.webp'])
def test_unusable_files_in_an_image_folder_are_skipped(tmp_path, capfd, suffix):
    folder = tmp_path / 'pictures'
    folder.mkdir()
    for i in (0, 2):
        (folder / f'{i}.png').write_bytes(encoded_image('.png'))
    (folder / f'1{suffix}').write_bytes(with_declared_size(suffix))
    (folder / '3.png').write_bytes(b'nothing')
    (folder / '4.png').symlink_to('4.png')
    (folder / '5.png').symlink_to('/dev/zero')
    os.mkfifo(folder / '6.png')
    (folder / '7.png').mkdir()
    (folder / '8.png').write_bytes(encoded_image('.png')[:60])
    status = cli.main(['annotate', str(folder), '-o', str(tmp_path / 'out')])
    captured = capfd.readouterr()
    assert status == 0
    assert '7 frames were not processed, image file: ' in captured.out
    # Skipped files count for the stamps of the others.
    assert [stamp for stamp, _ in people_in(tmp_path / 'out')] == [0, 200_000_000]


def special_paths(folder):
    """Return paths that are not recordings."""
    paths = {name: folder / name for name in ('fifo', 'loop.mcap', 'dangling', 'empty.mcap')}
    os.mkfifo(paths['fifo'])
    paths['loop.mcap'].symlink_to('loop.mcap')
    paths['dangling'].symlink_to('nowhere')
    paths['empty.mcap'].touch()
    for name in ('fifo.mcap', 'fifo.png', 'fifo.bag'):
        paths[name] = folder / name
        os.mkfifo(paths[name])
    paths['socket'] = folder / 'socket'
    socket.socket(socket.AF_UNIX).bind(str(paths['socket']))
    for name in ('empty.mp4', 'empty.png', 'empty.bag', 'empty.db3', 'empty.db3.zstd'):
        paths[name] = folder / name
        paths[name].touch()
    for name in ('folder.mcap', 'folder.bag', 'folder.mp4', 'folder.png', 'folder'):
        paths[name] = folder / name
        paths[name].mkdir()
    paths['text.mp4'] = folder / 'text.mp4'
    paths['text.mp4'].write_text('hello')
    paths['playlist.mp4'] = folder / 'playlist.mp4'
    paths['playlist.mp4'].write_text(f'#EXTM3U\n#EXTINF:1,\n{folder / "secret.ts"}\n')
    paths['/dev/zero'] = pathlib.Path('/dev/zero')
    paths['/dev/null'] = pathlib.Path('/dev/null')
    paths['missing'] = folder / 'missing'
    paths['through a file'] = paths['text.mp4'] / 'x.mcap'
    paths['long'] = folder / ('x' * 300)
    paths['not text'] = folder / os.fsdecode(b'\xff\xfe.mcap')
    paths['not text'].write_bytes(b'nothing')
    paths['control\x1b[31m\n.mcap'] = folder / 'control\x1b[31m\n.mcap'
    paths['control\x1b[31m\n.mcap'].touch()
    return paths


def test_each_unusable_path_is_reported_in_one_line(tmp_path, capfd):
    folder = tmp_path / 'inputs'
    folder.mkdir()
    paths = special_paths(folder)
    bag = write_bag(tmp_path / 'bag', [np.zeros((20, 30, 3), np.uint8)] * 2)
    status, lines = run(capfd, 'annotate', *paths.values(), bag, '-o', tmp_path / 'out')
    assert status == 1
    assert len(lines) == len(paths)
    for line in lines:
        assert line.isprintable()
        assert 'Errno' not in line
        assert 'object at 0x' not in line
    assert len(people_in(tmp_path / 'out' / 'bag_people')) == 2
    assert [path.name for path in (tmp_path / 'out').iterdir()] == ['bag_people']


@pytest.mark.parametrize('kind', ['fifo', 'loop.mcap', '/dev/zero', 'not text', 'empty.mp4'])
def test_a_single_unusable_path_is_reported_in_one_line(tmp_path, capfd, kind):
    path = special_paths(tmp_path)[kind]
    status, lines = run(capfd, 'annotate', path, '-o', tmp_path / 'out')
    assert (status, len(lines)) == (1, 1)
    status, lines = run(capfd, 'report', path, '-o', tmp_path / 'out.html')
    assert (status, len(lines)) == (1, 1)


def test_paths_that_are_not_valid_utf8_are_processed(tmp_path, capfd):
    image = np.zeros((20, 30, 3), np.uint8)
    (tmp_path / 'plain').mkdir()
    folder = tmp_path / os.fsdecode(b'odd\xff\x1b')
    folder.mkdir()
    bag = write_bag(tmp_path / 'plain' / 'bag', [image] * 2)
    bag = bag.rename(folder / os.fsdecode(b'b\xffag'))
    (folder / 'a.png').write_bytes(encoded_image('.png'))
    video = tmp_path / 'video.avi'
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*'MJPG'), 20.0, (64, 48))
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    video = video.rename(folder / os.fsdecode(b'v\xff.avi'))
    status, lines = run(capfd, 'annotate', bag, folder / 'a.png', video, '--csv', '--fov', 60)
    assert (status, lines) == (0, [])
    for name, frames in ((b'b\xffag_people', 2), (b'a_people', 1), (b'v\xff_people', 3)):
        assert len(people_in(folder / os.fsdecode(name))) == frames


def test_missing_permissions_are_reported(tmp_path):
    closed, fine = tmp_path / 'closed', tmp_path / 'fine'
    closed.mkdir()
    closed.chmod(0o000)
    secret = tmp_path / 'secret.mcap'
    secret.touch(mode=0o000)
    within = tmp_path / 'within'
    (within / 'bag').mkdir(parents=True)
    (within / 'bag').chmod(0o000)
    fine.mkdir()
    (fine / 'a.png').write_bytes(encoded_image('.png'))
    out = tmp_path / 'out'
    out.mkdir()
    out.chmod(0o777)
    for folder in (tmp_path, *tmp_path.parents[:2]):
        folder.chmod(0o755)
    code = (
        'import os, pathlib, sys\n'
        'from metrabs_ros.recordings.input_files import check_input\n'
        'from metrabs_ros.recordings.bags import find_bags, Bag\n'
        f'os.setgid({UNPRIVILEGED_ID}); os.setuid({UNPRIVILEGED_ID})\n'
        'for path in map(pathlib.Path, sys.argv[1:]):\n'
        '    try:\n'
        '        check_input(path); print([Bag(bag, print) for bag in find_bags(path)])\n'
        '    except ValueError as error:\n'
        '        print(error)\n'
    )
    if os.getuid():
        pytest.skip('only root can change to an unprivileged user')
    paths = [closed, closed / 'x.mcap', secret, within]
    found = subprocess.run(
        [sys.executable, '-c', code, *map(str, paths)], capture_output=True, text=True
    )
    lines = found.stdout.splitlines()
    assert len(lines) == len(paths), found.stderr
    assert all('permission denied' in line for line in lines[:3])
    assert 'cannot be read' in lines[3]


@pytest.fixture
def video(tmp_path):
    """Return the content of a video file with three frames."""
    file = tmp_path / 'whole.avi'
    writer = cv2.VideoWriter(str(file), cv2.VideoWriter.fourcc(*'MJPG'), 20.0, (160, 120))
    for i in range(3):
        writer.write(np.full((120, 160, 3), 50 * i, np.uint8))
    writer.release()
    return bytearray(file.read_bytes())


def test_a_video_with_huge_declared_frames_is_rejected(tmp_path, capfd, video):
    for start in [i for i in range(len(video)) if video[i : i + 2] == b'\xff\xc0']:
        video[start + 5 : start + 9] = struct.pack('>HH', DECLARED_PX, DECLARED_PX)
    file = tmp_path / 'huge.avi'
    file.write_bytes(video)
    status, (message,) = run(capfd, 'annotate', file, '-o', tmp_path / 'out')
    assert status == 1
    assert 'huge.avi' in message
    assert not (tmp_path / 'out').exists()


def test_invalid_rates_and_frame_counts_of_a_video_are_replaced(tmp_path, video):
    stream, header = video.index(b'strh') + 8, video.index(b'avih') + 8
    for scale, rate in ((1, 2**32 - 1), (2**32 - 1, 1), (0, 0), (1, 0), (0, 1)):
        video[stream + 20 : stream + 28] = struct.pack('<II', scale, rate)
        video[header : header + 4] = struct.pack('<I', 0)
        video[header + 16 : header + 20] = struct.pack('<I', 2**32 - 1)
        file = tmp_path / 'odd.avi'
        file.write_bytes(video)
        source = Source(str(file))
        assert 0.01 <= source.rate_hz <= 1000
        assert 0 <= source.expected_frames < 2**31
        assert len(list(source)) == 3


def test_a_truncated_video_is_read_in_part_or_rejected(tmp_path, video):
    for share in (0.01, 0.2, 0.5, 0.9):
        file = tmp_path / 'cut.avi'
        file.write_bytes(video[: int(share * len(video))])
        try:
            images = list(Source(str(file)))
        except UnusableSource:
            continue
        assert len(images) <= 3


def frame_starts(video):
    """Return the positions of the encoded frames in a video."""
    return [i + 8 for i in range(len(video)) if video[i : i + 4] == b'00dc'][:3]


def test_the_frames_after_a_damaged_frame_are_read(tmp_path, video):
    start = frame_starts(video)[1]
    video[start : start + 400] = bytes(400)
    file = tmp_path / 'damaged.avi'
    file.write_bytes(video)
    # A decoder with several threads also loses the frame before.
    *_, error, last = Source(str(file)).images_or_errors()
    assert str(error).endswith(f' of {file} cannot be decoded')
    assert last.mean() == pytest.approx(100, abs=2)


def test_frames_that_a_truncated_video_lacks_are_reported(tmp_path, video):
    file = tmp_path / 'cut.avi'
    file.write_bytes(video[: frame_starts(video)[2]])
    first, error = Source(str(file)).images_or_errors()
    assert first.shape == (120, 160, 3)
    assert str(error).endswith('it declares 3 frames, and 1 can be decoded')


HOSTILE_CALIBRATIONS = {
    'billion laughs': 'a: &a [x,x,x,x,x,x,x,x,x]\n'
    + ''.join(
        f'{chr(98 + i)}: &{chr(98 + i)} [{",".join([f"*{chr(97 + i)}"] * 9)}]\n' for i in range(9)
    ),
    'deep': '[' * 10_000,
    'python': '!!python/object/apply:os.system ["touch hacked"]',
    'large': 'k: [' + '1, ' * 500_000 + '1]',
    'digits': f'k: [{"9" * 5000}]',
    'nan': 'width: 64\nheight: 48\nk: [.nan, 0, 32, 0, .nan, 24, 0, 0, 1]\n',
    'infinite': 'width: 64\nheight: 48\nk: [.inf, 0, 32, 0, 50, 24, 0, 0, 1]\n',
    'infinite size': 'width: .inf\nheight: 48\nk: [50, 0, 32, 0, 50, 24, 0, 0, 1]\n',
    'negative size': 'width: -64\nheight: 48\nk: [50, 0, 32, 0, 50, 24, 0, 0, 1]\n',
    'text': 'width: 64\nheight: 48\nk: "500000000"\n',
    'matrix': 'image_width: 64\nimage_height: 48\ncamera_matrix: {data: {a: b}}\n',
    'matrix without data': 'image_width: 64\nimage_height: 48\ncamera_matrix: [1, 2]\n',
    'roi': 'width: 64\nheight: 48\nk: [50, 0, 32, 0, 50, 24, 0, 0, 1]\nroi: [1]\n',
    'coefficients': 'width: 64\nheight: 48\nk: [50, 0, 32, 0, 50, 24, 0, 0, 1]\nd: ['
    + '0, ' * 10_000
    + '0]\n',
    'model': 'width: 64\nheight: 48\nk: [50, 0, 32, 0, 50, 24, 0, 0, 1]\n'
    'distortion_model: {a: b}\n',
    'not text': b'\xff\xfe\x00k',
}


@pytest.mark.parametrize('name', HOSTILE_CALIBRATIONS)
def test_a_hostile_calibration_is_rejected_with_a_short_message(tmp_path, name):
    content = HOSTILE_CALIBRATIONS[name]
    file = tmp_path / 'camera.yaml'
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UnusableCalibration) as error:
        read_calibration(file)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize('kind', ['fifo', 'loop.mcap', '/dev/zero', 'folder', 'missing'])
def test_a_calibration_that_is_not_a_file_is_rejected(tmp_path, kind):
    with pytest.raises(UnusableCalibration, match='cannot be read'):
        read_calibration(special_paths(tmp_path)[kind])


@pytest.mark.parametrize(
    'arguments',
    [
        ('--fov', 'nan'),
        ('--fov', '-5'),
        ('--fov', '200'),
        ('--smoothing', '2'),
        ('--max-lost', 'nan'),
        ('--max-lost', '-1'),
        ('--num-aug', '0'),
        ('--detector-threshold', 'nan'),
        ('--batch', '-1'),
        ('--threads', '-2'),
        ('--workers', '0'),
    ],
)
def test_options_out_of_range_are_rejected(tmp_path, capfd, arguments):
    file = tmp_path / 'a.png'
    file.write_bytes(encoded_image('.png'))
    status, (message,) = run(capfd, 'annotate', file, *arguments)
    assert status == 1
    assert 'must be' in message


def test_causes_and_warnings_are_limited_in_number_and_length():
    summary = Summary('source', 'output')
    for i in range(600):
        summary.count_unusable(f'image encoding {i}\x1b', f'in encoding {i}\n' + 'x' * 10_000)
        summary.add_warning(f'{i} is odd\n' + 'y' * 10_000)
    assert len(summary.unusable) == MAX_CAUSES + 1
    assert sum(count for count, _ in summary.unusable.values()) == 600
    for line in [*summary.lines(), *summary.warnings]:
        assert line.isprintable()
        assert len(line) < 2000
    assert len(summary.warnings) == 51


def test_images_with_invalid_headers_are_counted(tmp_path):
    image = np.zeros((20, 30, 3), np.uint8)
    usual = image_message(image, 0, CAMERA[0])
    stamp, header = usual.header.stamp, usual.header
    headers = [
        dataclasses.replace(header, stamp=dataclasses.replace(stamp, sec=2**31 - 1, nanosec=n))
        for n in (2**32 - 1, 10**9)
    ]
    headers += [
        dataclasses.replace(header, stamp=dataclasses.replace(stamp, sec=-1)),
        dataclasses.replace(header, frame_id='f' * 100_000),
    ]
    extra = [
        (
            CAMERA[0].name,
            'sensor_msgs/msg/Image',
            START_NS + i,
            dataclasses.replace(usual, header=h),
        )
        for i, h in enumerate(headers)
    ]
    bag = write_bag(tmp_path / 'bag', [image], extra=extra)
    summary = annotate(
        bag, tmp_path / 'out', AnnotateOptions(), KnownPeople((0, 0, 3000)), lambda message: None
    )
    assert (summary.frames, summary.processed) == (5, 1)
    assert {cause: count for cause, (count, _) in summary.unusable.items()} == {
        'image stamp': 3,
        'image frame_id': 1,
    }
    assert len(people_in(tmp_path / 'out')) == 1
