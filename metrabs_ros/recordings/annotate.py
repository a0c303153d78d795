"""Finding the people in every frame of a recording, and writing them beside it."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence

from tqdm import tqdm

import metrabs_ros
from metrabs_ros.blazepose.estimator import BlazePoseEstimator
from metrabs_ros.camera import Camera
from metrabs_ros.conversions.unusable_input import UnusableInput
from metrabs_ros.options import DEFAULT_FOV_DEGREES, View
from metrabs_ros.people import UNKNOWN_ID, People
from metrabs_ros.pose_estimator import PoseEstimator
from metrabs_ros.recordings.bag_message import RESULTS_SUFFIX
from metrabs_ros.recordings.bag_recording import BagRecording
from metrabs_ros.recordings.bags import Bag, is_bag
from metrabs_ros.recordings.calibration import Calibration, read_calibration
from metrabs_ros.recordings.frame_processing import (
    FrameProcessor,
    IndependentFrames,
    ProcessedFrame,
    TrackedFrames,
)
from metrabs_ros.recordings.image_files import Source, UnusableSource
from metrabs_ros.recordings.image_recording import ImageRecording
from metrabs_ros.recordings.input_files import check_input, is_folder
from metrabs_ros.recordings.metadata import NAME as METADATA
from metrabs_ros.recordings.options import AnnotateOptions, Summary
from metrabs_ros.recordings.output_files import (
    UNFINISHED,
    Pair,
    UnfinishedFolder,
    UnusableOutput,
    absolute,
    check_apart,
    check_output,
    publish,
    unfinished,
    writing,
)
from metrabs_ros.recordings.progress import Progress, no_progress, progress_bar
from metrabs_ros.recordings.recording import Frame, Recording, size_of
from metrabs_ros.recordings.results import ResultBag
from metrabs_ros.recordings.resume_log import (
    Failure,
    Key,
    ResumeLog,
    parse_entry,
)
from metrabs_ros.recordings.tables import JointTable, TableFile
from metrabs_ros.recordings.threads import ReadAhead, WriteBehind
from metrabs_ros.regular_file import shown
from metrabs_ros.skeletons.conventions import Convention

__all__ = ['UNFINISHED', 'annotate', 'results_of']

Tell = Callable[[str], None]

READ_AHEAD = WRITE_BEHIND = 16
"""So many messages wait between the threads."""
USUAL_BATCH = 8
BATCH_PIXELS = 64_000_000
"""Fewer images than a batch has are held in memory at once if they have more pixels."""
OF_BATCHES_AND_OUTPUTS = ('batch', 'only_results', 'csv', 'parquet', 'overwrite', 'threads')
OF_TRACKING = ('smoothing', 'max_lost')


def results_of(source: pathlib.Path) -> pathlib.Path:
    """Return where the results of a recording are written by default."""
    whole = pathlib.Path(os.path.abspath(source))
    stem = whole.name if is_folder(whole) else whole.stem
    return absolute(whole.parent) / f'{stem}{RESULTS_SUFFIX}'


def annotate(
    source: pathlib.Path,
    output: pathlib.Path,
    wanted: AnnotateOptions,
    model: PoseEstimator,
    tell: Tell = print,
    show_progress: bool = False,
) -> Summary:
    """
    Find the people in every frame of a recording.

    Results appear when they are complete.  A run that was interrupted continues where it stopped
    when it is started again.

    Parameters
    ----------
    source
        A bag of ROS 1 or ROS 2, a video, or a folder of pictures.
    output
        The folder of the results.
    wanted
        What is wanted.
    model
        What finds people.
    tell
        Is told in a sentence of everything that is not as it should be.
    show_progress
        Whether to show a progress bar.

    Raises
    ------
    ValueError
        If nothing can be worked on or written; the message says why.
    FileExistsError
        If there are results already.
    """
    check_input(source)
    output = absolute(output)
    for complaint in check_apart([Pair(source, output)]):
        if complaint:
            raise UnusableOutput(complaint)
    tables = _table_files(source, output, wanted)
    names = [METADATA, *(table.file.name for table in tables if table.is_in_results)]
    check_output(output, wanted.overwrite, [*names, f'{output.name}.mcap'])
    convention = model.convention(wanted.skeleton)
    summary = Summary(shown(source), shown(output))

    def remark(sentence: str) -> None:
        if said := summary.remark(sentence):
            tell(said)

    start_s = time.perf_counter()
    progress = progress_bar if show_progress else no_progress
    recording = _open(source, wanted, remark, progress)
    try:
        with writing(output), unfinished(output) as folder:
            resume_log = ResumeLog(folder.journal, _identity(source, wanted))
            try:
                run = _Run(recording, resume_log, model, convention, wanted, summary)
                run.work(folder, tables, show_progress)
            finally:
                resume_log.close()
            summary.total_s = time.perf_counter() - start_s
            # Of a bag, the other messages are kept; of pictures nothing would be left.
            is_empty = not summary.worked_on and isinstance(recording, ImageRecording)
            if is_empty:
                run.discard()
            else:
                run.finish(folder, output)
    finally:
        recording.close()
    if is_empty:
        raise UnusableSource(_why_nothing_was_found(summary))
    return summary


class _Run:
    """A recording that is being worked on."""

    def __init__(
        self,
        recording: Recording,
        resume_log: ResumeLog,
        model: PoseEstimator,
        convention: Convention,
        wanted: AnnotateOptions,
        summary: Summary,
    ) -> None:
        self._recording = recording
        self._log = resume_log
        self._summary = summary
        kind = TrackedFrames if wanted.follow else IndependentFrames
        self._processor: FrameProcessor = kind(model, convention, wanted)
        # BlazePose has its own batches of one image's tiles and people.
        usual = 1 if isinstance(model, BlazePoseEstimator) else USUAL_BATCH
        self._batch = 1 if wanted.follow else wanted.batch or usual
        self._ids: list[set[int]] = [set() for _ in recording.cameras]
        self._table_files: list[TableFile] = []
        self._tables: list[JointTable] = []

    def work(
        self, folder: UnfinishedFolder, tables: Sequence[TableFile], show_progress: bool
    ) -> None:
        """Work on all frames, and write the results into a folder."""
        cameras, kept = self._recording.cameras, self._recording.kept
        self._bag = ResultBag(folder.results, cameras, kept)
        self._behind = WriteBehind(WRITE_BEHIND)
        try:
            self._table_files = list(tables)
            for table in tables:
                self._tables.append(table.open(folder, with_camera=len(cameras) > 1))
            total = sum(camera.frames for camera in cameras)
            with tqdm(total=total or None, unit='frame', disable=not show_progress) as progress:
                for batch in self._batches():
                    self._work_on(batch)
                    progress.update(len(batch))
            self._behind.finish()
            for opened in self._tables:
                opened.close()
        except BaseException:
            with contextlib.suppress(Exception):  # There is another reason to stop already.
                self._behind.finish()
            for opened in self._tables:
                with contextlib.suppress(Exception):
                    opened.close()
            with contextlib.suppress(Exception):
                self._bag.abort()
            raise
        summary = self._summary
        summary.people = sum(len(ids) for ids in self._ids)
        summary.resumed = self._log.replayed

    def discard(self) -> None:
        """Close unfinished results."""
        self._bag.abort()

    def finish(self, folder: UnfinishedFolder, output: pathlib.Path) -> None:
        """Put complete results where they belong."""
        try:
            self._bag.close(json.dumps(dataclasses.asdict(self._summary)))
        except BaseException:
            with contextlib.suppress(Exception):
                self._bag.abort()
            raise
        publish(folder.results, output)
        for table in self._table_files:
            table.publish(folder)

    def _batches(self) -> Iterator[list[Frame]]:
        """Return frames in batches, and keep the messages between them."""
        waiting: collections.deque[Frame] = collections.deque()
        # A camera's calibration may come just after its image: one frame waits longer.
        lookahead = len(self._recording.cameras)
        for item in ReadAhead(self._recording, READ_AHEAD, size_of):
            if isinstance(item, Frame):
                self._summary.frames += 1
                waiting.append(item)
                if len(waiting) >= self._batch + lookahead:
                    yield [waiting.popleft() for _ in range(self._batch)]
            else:
                self._behind.put(functools.partial(self._bag.keep, item), len(item.data))
        while waiting:
            yield [waiting.popleft() for _ in range(min(self._batch, len(waiting)))]

    def _work_on(self, frames: Sequence[Frame]) -> None:
        usable: list[tuple[Frame, View]] = []
        pixels = 0
        for frame in frames:
            try:
                usable.append((frame, self._recording.view(frame)))
            except UnusableInput as unusable:
                self._summary.leave_out(unusable.cause, str(unusable))
                continue
            height, width = usable[-1][1].image.shape[:2]
            pixels += height * width
            if pixels > BATCH_PIXELS:
                self._process_and_write(usable)
                usable, pixels = [], 0
        self._process_and_write(usable)

    def _process_and_write(self, frames: Sequence[tuple[Frame, View]]) -> None:
        for (frame, view), (entry, people) in zip(frames, self._processed(frames)):
            if isinstance(entry, Failure):
                self._summary.leave_out(entry.cause, entry.why)
            if people is not None:
                self._write(frame, view, people)

    def _processed(self, frames: Sequence[tuple[Frame, View]]) -> list[ProcessedFrame]:
        """Return the results of frames: from the resume log as far as it goes, then new ones."""
        results: list[ProcessedFrame] = []
        for frame, view in frames:
            numbers = self._log.take(Key(frame.camera, frame.stamp_ns))
            if numbers is None:
                break
            entry = parse_entry(numbers)
            results.append(ProcessedFrame(entry, self._processor.replay(frame, view, entry)))
        new = frames[len(results) :]
        if new:
            start_s = time.perf_counter()
            processed = self._processor.process(new)
            self._summary.estimator_s += time.perf_counter() - start_s
            self._log.put_together(
                [
                    (Key(frame.camera, frame.stamp_ns), result.entry.to_numbers())
                    for (frame, _), result in zip(new, processed)
                ]
            )
            results += processed
        return results

    def _write(self, frame: Frame, view: View, people: People) -> None:
        # The image itself is not needed any more.
        without_image = frame._replace(content=None)
        self._behind.put(functools.partial(self._write_out, without_image, people, view.camera))
        self._summary.worked_on += 1
        self._summary.sightings += len(people)
        self._ids[frame.camera].update(people.ids[people.ids != UNKNOWN_ID].tolist())

    def _write_out(self, frame: Frame, people: People, taken_by: Camera) -> None:
        """Write the people of a frame, beside the network."""
        camera = self._recording.cameras[frame.camera]
        self._bag.put(frame, people, taken_by, camera.prefix)
        for table in self._tables:
            table.put(frame.stamp_ns, camera.source, people)


def _why_nothing_was_found(summary: Summary) -> str:
    examples = [example for _, example in summary.unusable.values()]
    if not examples:
        return f'{summary.source} has no images'
    return f'{summary.source} has no image that can be worked on: {examples[0]}'


def _table_files(
    source: pathlib.Path, output: pathlib.Path, wanted: AnnotateOptions
) -> list[TableFile]:
    """Return the tables that are wanted; raises an UnusableOutput where one cannot be written."""
    inputs = [source, *_other_inputs(wanted)]
    tables = [
        TableFile.of(kind, target, output, inputs, wanted.overwrite)
        for kind, target in (('csv', wanted.csv), ('parquet', wanted.parquet))
        if target is not None
    ]
    files = [absolute(table.file) for table in tables]
    if len(set(files)) < len(files):
        raise UnusableOutput(f'--csv and --parquet name the same file {shown(tables[0].file)}')
    return tables


def _other_inputs(wanted: AnnotateOptions) -> list[pathlib.Path]:
    """Return the files and folders that are read besides the recording."""
    paths = [pathlib.Path(wanted.model), pathlib.Path(wanted.detector.partition(':')[2] or '-')]
    if wanted.camera_info is not None:
        paths.append(wanted.camera_info)
    return [path for path in paths if os.path.exists(path)]


def _open(
    source: pathlib.Path, wanted: AnnotateOptions, tell: Tell, progress: Progress
) -> Recording:
    calibration: Calibration | None = None
    if wanted.camera_info is not None:
        calibration = read_calibration(wanted.camera_info)
    keep = not wanted.only_results
    if is_bag(source):
        bag = Bag(source, tell, progress)
        try:
            return BagRecording(bag, calibration, wanted.fov_degrees, wanted.topics, keep, tell)
        except BaseException:
            bag.close()
            raise
    pictures = Source(str(source), still_frames=1)
    if calibration is None and not wanted.fov_degrees:
        tell(
            f'{shown(source)} has no calibration: a field of view of {DEFAULT_FOV_DEGREES:g} '
            'degrees is guessed, and distances are only as true as that; --camera-info FILE or '
            '--fov DEGREES says better'
        )
    fov_degrees = wanted.fov_degrees or DEFAULT_FOV_DEGREES
    return ImageRecording(pictures, calibration, fov_degrees, keep)


def _identity(source: pathlib.Path, wanted: AnnotateOptions) -> dict[str, object]:
    """Return all that what is found depends on."""
    left_out = {*OF_BATCHES_AND_OUTPUTS, *(() if wanted.follow else OF_TRACKING)}
    about = {
        name: value for name, value in dataclasses.asdict(wanted).items() if name not in left_out
    }
    about['camera_info'] = (
        wanted.camera_info.read_text(encoding='utf-8') if wanted.camera_info else ''
    )
    about['topics'] = list(wanted.topics)
    return {
        'version': metrabs_ros.__version__,
        'source': _files_of(source),
        'weights': [_files_of(path) for path in _other_inputs(wanted)],
        **about,
    }


def _files_of(path: pathlib.Path) -> list[tuple[str, int, int]]:
    """Return the files of a folder, or a file: name, size, and when it was changed."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [_about_file(file) for file in files]


def _about_file(file: pathlib.Path) -> tuple[str, int, int]:
    try:
        status = file.stat()
    except OSError:  # For example a link to a file that does not exist.
        return file.name, 0, 0
    return file.name, status.st_size, status.st_mtime_ns
