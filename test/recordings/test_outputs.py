"""Results replace only files that annotate wrote, and never an input."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from known_people import KnownPeople
from recorded_bags import people_in, write_bag

from metrabs_ros import cli
from metrabs_ros.recordings import output_files, parallel
from metrabs_ros.recordings.annotate import UNFINISHED, annotate
from metrabs_ros.recordings.options import AnnotateOptions
from metrabs_ros.recordings.output_files import MANIFEST, Pair, UnusableOutput, find_conflicts

IMAGES = [np.zeros((20, 30, 3), np.uint8)] * 2


@pytest.fixture(autouse=True)
def known_people(monkeypatch):
    """Replace the model by one that needs no network."""
    people = KnownPeople((0, 0, 3000))
    monkeypatch.setattr(parallel, '_load_model', lambda options: people)


def contents_of(folder):
    """Return the checksum of each file in a folder."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob('*'))
        if file.is_file()
    }


def run(source, output, **options):
    return annotate(
        source, output, AnnotateOptions(**options), KnownPeople((0, 0, 3000)), lambda message: None
    )


@pytest.fixture
def bag(tmp_path):
    return write_bag(tmp_path / 'data' / 'bag', IMAGES)


def overlapping_outputs(tmp_path, bag):
    """Return different paths of outputs that are, contain, or are inside the input."""
    link, parent_link = tmp_path / 'link', tmp_path / 'parent_link'
    link.symlink_to(bag)
    parent_link.symlink_to(bag.parent)
    return {
        'the input': bag,
        'its parent': bag.parent,
        'above that': tmp_path,
        'the root': pathlib.Path('/'),
        'within': bag / 'people',
        'deep within': bag / 'a' / 'b' / 'c',
        'one of its files': bag / 'bag.mcap',
        'within one of its files': bag / 'bag.mcap' / 'x',
        'a link': link,
        'within a link': link / 'people',
        'a link to the parent': parent_link,
        'through a link': parent_link / 'bag',
        'with dots': bag / '..' / 'bag',
        'with other dots': bag.parent / 'nothing' / '..' / 'bag',
        'relative': pathlib.Path(os.path.relpath(bag)),
        'relative parent': pathlib.Path(os.path.relpath(bag.parent)),
    }


@pytest.mark.parametrize('overwrite', [(), ('--overwrite',)], ids=['', 'overwrite'])
def test_an_output_that_overlaps_the_input_is_rejected(tmp_path, bag, capfd, overwrite):
    before = contents_of(tmp_path)
    for name, output in overlapping_outputs(tmp_path, bag).items():
        status = cli.main(['annotate', str(bag), '-o', str(output), *overwrite])
        captured = capfd.readouterr().err
        assert status == 1, name
        assert 'input' in captured, name
        assert captured.count('\n') == 1, name
        assert contents_of(tmp_path) == before, name


def test_an_output_that_contains_an_input_file_is_rejected(tmp_path, capfd):
    file = tmp_path / 'pictures' / 'a.png'
    file.parent.mkdir()
    cv2.imwrite(str(file), IMAGES[0])
    video = tmp_path / 'videos' / 'v.avi'
    video.parent.mkdir()
    video.write_bytes(b'RIFF')
    before = contents_of(tmp_path)
    for source in (file, video):
        for output in (source.parent, tmp_path, source):
            assert cli.main(['annotate', str(source), '-o', str(output), '--overwrite']) == 1
            assert 'input' in capfd.readouterr().err
            assert contents_of(tmp_path) == before


def test_targets_of_links_in_the_input_are_inputs(tmp_path, bag):
    out = tmp_path / 'out'
    run(bag, out)
    linked = tmp_path / 'linked'
    linked.mkdir()
    for file in out.iterdir():
        (linked / file.name).symlink_to(file)
    before = contents_of(out)
    with pytest.raises(UnusableOutput, match='contains the input'):
        run(linked, out, overwrite=True)
    assert contents_of(out) == before


def test_an_output_that_is_another_input_is_rejected(tmp_path, bag, capfd):
    people = tmp_path / 'data' / 'bag_people'
    run(bag, people)
    before = contents_of(people)
    arguments = ['annotate', str(bag), str(people), '--overwrite']
    assert cli.main(arguments) == 1
    captured = capfd.readouterr()
    assert 'bag_people is the input' in captured.err
    assert contents_of(people) == before
    assert len(people_in(tmp_path / 'data' / 'bag_people_people')) == 2


def test_two_recordings_with_the_same_output_are_rejected(tmp_path, bag, capfd):
    other = write_bag(tmp_path / 'other' / 'bag', IMAGES * 2)
    out = tmp_path / 'out'
    assert cli.main(['annotate', str(bag), str(other), '-o', str(out)]) == 1
    captured = capfd.readouterr()
    assert 'is in, the output of' in captured.err
    assert 'Traceback' not in captured.err
    assert len(people_in(out / 'bag_people')) == 2
    # Of the same recording given twice, the first one is annotated.
    assert cli.main(['annotate', str(bag), str(bag), '-o', str(tmp_path / 'twice')]) == 1
    assert len(people_in(tmp_path / 'twice' / 'bag_people')) == 2


def test_find_conflicts_detects_overlapping_paths(tmp_path):
    (tmp_path / 'a' / 'b').mkdir(parents=True)
    pairs = [
        Pair(tmp_path / 'a', tmp_path / 'x'),
        Pair(tmp_path / 'x', tmp_path / 'y'),
        Pair(tmp_path / 'c', tmp_path / 'z'),
        Pair(tmp_path / 'd', tmp_path / 'z' / 'within'),
        Pair(tmp_path / 'e', tmp_path / 'a' / 'b'),
        Pair(tmp_path / 'f', tmp_path),
    ]
    rejected = [bool(message) for message in find_conflicts(pairs)]
    assert rejected == [True, False, False, True, True, True]


def test_only_files_that_annotate_wrote_are_replaced(tmp_path, bag):
    out = tmp_path / 'out'
    run(bag, out, csv='')
    notes, folder = out / 'notes.txt', out / 'more' / 'deep'
    notes.write_text('mine')
    folder.mkdir(parents=True)
    (folder / 'file').write_text('mine, too')
    (out / 'report.html').write_text('a report')
    os.mkfifo(out / 'pipe')
    (out / 'link').symlink_to(notes)
    summary = run(bag, out, overwrite=True)
    assert summary.processed == 2
    assert len(people_in(out)) == 2
    assert notes.read_text() == 'mine'
    assert (folder / 'file').read_text() == 'mine, too'
    assert (out / 'report.html').exists()
    assert (out / 'pipe').exists()
    assert (out / 'link').is_symlink()
    # Files of the earlier run that the new run does not write are removed.
    assert not (out / 'joints.csv').exists()
    assert not (tmp_path / f'out{UNFINISHED}').exists()


def test_results_can_be_written_next_to_other_files(tmp_path, bag):
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'photo.jpg').write_bytes(b'jpeg')
    with pytest.raises(FileExistsError, match='--overwrite'):
        run(bag, out)
    run(bag, out, overwrite=True)
    assert (out / 'photo.jpg').read_bytes() == b'jpeg'
    assert len(people_in(out)) == 2
    run(bag, out, overwrite=True)
    assert (out / 'photo.jpg').exists()


@pytest.mark.parametrize('name', ['metadata.yaml', 'out.mcap', 'joints.csv'])
def test_other_files_with_the_same_names_are_not_replaced(tmp_path, bag, name):
    out = tmp_path / 'out'
    out.mkdir()
    (out / name).write_text('mine')
    before = contents_of(tmp_path)
    with pytest.raises(UnusableOutput, match='did not write'):
        run(bag, out, overwrite=True, csv='')
    assert contents_of(tmp_path) == before
    # Other recordings are not replaced, either.
    other = write_bag(tmp_path / 'other', IMAGES)
    before = contents_of(other)
    with pytest.raises(UnusableOutput, match='did not write'):
        run(bag, other, overwrite=True)
    assert contents_of(other) == before


def test_results_without_a_manifest_are_recognized_by_their_metadata(tmp_path, bag):
    out = tmp_path / 'out'
    run(bag, out)
    (out / MANIFEST).unlink()
    (out / 'notes.txt').write_text('mine')
    run(bag, out, overwrite=True)
    assert len(people_in(out)) == 2
    assert (out / 'notes.txt').exists()


@pytest.mark.parametrize(
    'content',
    [
        '{"files": ["../precious", "/precious", "a/b", "..", ".", "", 5, null, "notes"]}',
        '[' * 100_000,
        '{"files": "notes"}',
        'nothing',
        b'\xff\xfe',
    ],
)
def test_a_hostile_manifest_deletes_no_other_files(tmp_path, bag, content):
    out = tmp_path / 'out'
    out.mkdir()
    (tmp_path / 'precious').write_text('mine')
    data = content if isinstance(content, bytes) else content.encode()
    (out / MANIFEST).write_bytes(data)
    with contextlib.suppress(UnusableOutput):
        run(bag, out, overwrite=True)
    assert (tmp_path / 'precious').read_text() == 'mine'


def test_another_folder_with_the_name_of_unfinished_results_is_not_changed(tmp_path, bag):
    folder = tmp_path / f'out{UNFINISHED}'
    for name in ('precious', 'results', 'tables', 'resume_log'):
        folder.mkdir()
        (folder / name).mkdir()
        (folder / name / 'file').write_text('mine')
        before = contents_of(tmp_path)
        with pytest.raises(UnusableOutput, match='move it to another place'):
            run(bag, tmp_path / 'out')
        assert contents_of(tmp_path) == before
        shutil.rmtree(folder)
    # Symbolic links are not followed.
    target = tmp_path / 'target'
    target.mkdir()
    folder.symlink_to(target)
    with pytest.raises(UnusableOutput, match='is not a folder'):
        run(bag, tmp_path / 'out')
    folder.unlink()
    folder.write_text('a file')
    with pytest.raises(UnusableOutput, match='is not a folder'):
        run(bag, tmp_path / 'out')


@pytest.mark.parametrize('name', ['lock', 'resume_log'])
def test_links_in_an_unfinished_folder_are_not_followed(tmp_path, bag, name):
    folder, precious = tmp_path / f'out{UNFINISHED}', tmp_path / 'precious'
    folder.mkdir()
    precious.write_text('mine')
    (folder / 'lock').touch()
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(precious)
    with pytest.raises(ValueError, match=r'out'):
        run(bag, tmp_path / 'out')
    assert precious.read_text() == 'mine'


def test_outputs_may_have_the_names_of_internal_files(tmp_path, bag):
    for name in ('lock', 'resume_log', 'results'):
        run(bag, tmp_path / name)
        assert len(people_in(tmp_path / name)) == 2


def test_a_table_replaces_neither_inputs_nor_other_files(tmp_path, bag, capfd):
    camera = tmp_path / 'camera.yaml'
    camera.write_text(
        'width: 30\nheight: 20\nk: [50, 0, 15, 0, 50, 10, 0, 0, 1]\ndistortion_model: plumb_bob\n'
    )
    notes, link = tmp_path / 'notes.csv', tmp_path / 'link.csv'
    notes.write_text('mine')
    link.symlink_to(bag / 'bag.mcap')
    out = tmp_path / 'out'
    before = contents_of(tmp_path)
    for target in (
        bag / 'bag.mcap',
        bag / 'metadata.yaml',
        bag / 'new.csv',
        bag,
        link,
        camera,
        notes,
        out,
        out / 'metadata.yaml',
        out / 'out.mcap',
        tmp_path / 'missing' / 'a.csv',
        notes / 'a.csv',
    ):
        for kind in ('--csv', '--parquet'):
            arguments = ['annotate', str(bag), '-o', str(out), kind, str(target), '--overwrite']
            assert cli.main([*arguments, '--camera-info', str(camera)]) == 1, target
            captured = capfd.readouterr().err
            assert captured.count('\n') == 1, captured
            assert contents_of(tmp_path) == before, target
    both = str(tmp_path / 'both')
    assert cli.main(['annotate', str(bag), '-o', str(out), '--csv', both, '--parquet', both]) == 1
    assert contents_of(tmp_path) == before


def test_a_table_replaces_an_earlier_table_with_overwrite(tmp_path, bag):
    for kind in ('csv', 'parquet'):
        table = tmp_path / f'a.{kind}'
        run(bag, tmp_path / f'first_{kind}', **{kind: str(table)})
        before = table.read_bytes()
        with pytest.raises(FileExistsError, match='--overwrite'):
            run(bag, tmp_path / f'second_{kind}', **{kind: str(table)})
        run(bag, tmp_path / f'second_{kind}', **{kind: str(table)}, overwrite=True)
        assert table.read_bytes() == before
    # A table in the folder of the results may have any name.
    run(bag, tmp_path / 'within', csv=str(tmp_path / 'within' / 'table.csv'))
    run(bag, tmp_path / 'usual', csv=str(tmp_path / 'usual' / 'joints.csv'))
    assert (tmp_path / 'within' / 'table.csv').exists()
    assert (tmp_path / 'usual' / 'joints.csv').exists()


def test_an_interrupted_run_leaves_no_table(tmp_path, bag):
    class Stopping(KnownPeople):
        def poses_of(self, view, options):
            raise KeyboardInterrupt

    table = tmp_path / 'a.csv'
    with pytest.raises(KeyboardInterrupt):
        annotate(bag, tmp_path / 'out', AnnotateOptions(csv=str(table)), Stopping(), print)
    assert not table.exists()
    run(bag, tmp_path / 'out', csv=str(table))
    assert table.exists()


def test_tables_can_be_written_to_pipes_and_devices(tmp_path, bag):
    run(bag, tmp_path / 'out', csv='/dev/null')
    with pytest.raises(UnusableOutput, match='no space left'):
        run(bag, tmp_path / 'full', csv='/dev/full')
    assert not (tmp_path / 'full').exists()
    pipe = tmp_path / 'pipe'
    os.mkfifo(pipe)
    with pytest.raises(UnusableOutput, match='cannot be written'):
        run(bag, tmp_path / 'no_reader', csv=str(pipe))
    with subprocess.Popen(['cat', str(pipe)], stdout=subprocess.PIPE) as reader:
        # Opening the pipe for writing blocks until the reader has opened it.
        os.close(os.open(pipe, os.O_RDWR))
        with open(pipe, 'w'):
            run(bag, tmp_path / 'piped', csv=str(pipe))
        assert reader.stdout.read().startswith(b'stamp,id,joint')


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a file system of 200 kB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    mounted = subprocess.run(
        ['mount', '-t', 'tmpfs', '-o', 'size=200k', 'tmpfs', str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip('mounting needs permissions')
    yield folder
    links = [os.path.realpath(f'/proc/self/fd/{name}') for name in os.listdir('/proc/self/fd')]
    left_open = [link for link in links if link.startswith(str(folder))]
    # An open file would keep the file system busy.
    subprocess.run(['umount', '--lazy', str(folder)], check=True)
    assert not left_open


def test_a_full_disk_is_reported_and_the_run_is_resumed_later(tmp_path, small_disk, capfd):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (60, 80, 3), np.uint8) for _ in range(20)]
    bag = write_bag(tmp_path / 'large', pictures)
    ballast = small_disk / 'ballast'
    ballast.write_bytes(bytes(100_000))
    arguments = ['annotate', str(bag), '-o', str(small_disk / 'out')]
    assert cli.main(arguments) == 1
    captured = capfd.readouterr().err
    lines = [line for line in captured.splitlines() if line.startswith('metrabs_ros: ')]
    assert len(lines) == 1
    assert 'cannot be written: no space left on device' in lines[0]
    assert 'Traceback' not in captured
    assert not (small_disk / 'out').exists()
    subprocess.run(['mount', '-o', 'remount,size=20m', str(small_disk)], check=True)
    assert cli.main(arguments) == 0
    assert 'before the interruption' in capfd.readouterr().out
    assert len(people_in(small_disk / 'out')) == 20


def test_outputs_that_cannot_be_created_are_reported(tmp_path, bag, capfd):
    file = tmp_path / 'file'
    file.write_text('mine')
    loop = tmp_path / 'loop'
    loop.symlink_to(loop)
    for output in (file, file / 'out', file / 'a' / 'b', loop, loop / 'out', '/proc/out'):
        for more in ((), ('--overwrite',)):
            status = cli.main(['annotate', str(bag), '-o', str(output), *more])
            captured = capfd.readouterr().err
            assert status == 1, output
            assert captured.count('\n') == 1, captured
            assert 'Errno' not in captured
    assert file.read_text() == 'mine'


def test_results_are_recognized_after_a_crash_during_replacement(tmp_path, bag, monkeypatch):
    out = tmp_path / 'out'
    run(bag, out)
    (out / 'notes.txt').write_text('mine')
    replace = os.replace
    for stop_at in range(1, 6):
        calls = iter(range(100))

        def stopping(source, target, calls=calls, stop_at=stop_at):
            if next(calls) == stop_at:
                raise OSError(errno.EIO, 'Input/output error')
            replace(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(output_files.os, 'replace', stopping)
            with contextlib.suppress(UnusableOutput):
                run(bag, out, overwrite=True)
        assert (out / 'notes.txt').read_text() == 'mine'
        assert json.loads((out / MANIFEST).read_text())['files']
        run(bag, out, overwrite=True)
        assert len(people_in(out)) == 2
