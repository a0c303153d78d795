"""Annotation of a recording: estimate the people in every frame and write a result bag."""

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
from metrabs_ros.recordings.metadata import METADATA_FILE
from metrabs_ros.recordings.options import AnnotateOptions, Summary
from metrabs_ros.recordings.output_files import (
    UNFINISHED,
    Pair,
    UnfinishedFolder,
    UnusableOutput,
    absolute,
    check_output,
    find_conflicts,
    publish,
    translate_os_errors,
    unfinished_folder,
)
from metrabs_ros.recordings.progress import Progress, no_progress, progress_bar
from metrabs_ros.recordings.recorded_fusion import SKELETONS_TOPIC, FusedFrame, RecordedFusion
from metrabs_ros.recordings.recording import RecordedFrame, Recording, size_of
from metrabs_ros.recordings.results import ResultBag
from metrabs_ros.recordings.resume_log import (
    Failure,
    Key,
    ResumeLog,
    parse_entry,
)
from metrabs_ros.recordings.scale_cues import CueOptions
from metrabs_ros.recordings.tables import JointTable, TableFile
from metrabs_ros.recordings.threads import ReadAhead, WriteBehind
from metrabs_ros.recordings.video_recording import CALIBRATION_FOLDER, VIDEO_FOLDER, open_videos
from metrabs_ros.regular_file import shown
from metrabs_ros.skeletons.conventions import Convention
from metrabs_ros.tracking.timed_view import TimedView

__all__ = ['UNFINISHED', 'annotate', 'default_output']

Warn = Callable[[str], None]
"""Callback that is called with each warning message."""

READ_AHEAD = WRITE_BEHIND = 16
"""Maximum number of messages in the queues between the threads."""
DEFAULT_BATCH = 8
"""Number of frames per batch of MeTRAbs."""
MAX_BATCH_PIXELS = 64_000_000
"""A batch is processed early when its images exceed this number of pixels."""
OPTIONS_WITHOUT_EFFECT = ('batch', 'only_results', 'csv', 'parquet', 'overwrite', 'threads')
"""Options that do not change the estimated people, so that a run can be resumed with others."""
TRACKING_OPTIONS = ('smoothing', 'max_lost')
"""Options that change the estimated people only if people are followed."""


def default_output(source: pathlib.Path) -> pathlib.Path:
    """Return the default folder of the results of a recording."""
    path = pathlib.Path(os.path.abspath(source))
    stem = path.name if is_folder(path) else path.stem
    return absolute(path.parent) / f'{stem}{RESULTS_SUFFIX}'


def annotate(
    source: pathlib.Path,
    output: pathlib.Path,
    options: AnnotateOptions,
    model: PoseEstimator,
    warn: Warn = print,
    show_progress: bool = False,
) -> Summary:
    """
    Estimate the people in every frame of a recording.

    The output folder is created when the results are complete.  If an interrupted run is started
    again, it resumes where it stopped.

    Parameters
    ----------
    source
        A ROS 1 or ROS 2 bag, a video, a folder of images, or an image file; with `options.fuse`,
        a bag of several cameras or a folder of synchronised videos.
    output
        Folder of the results.
    options
        Options of the run.
    model
        Model that estimates the people.
    warn
        Called with each warning message.
    show_progress
        Whether to display a progress bar.

    Returns
    -------
    Statistics and warnings of the run.

    Raises
    ------
    ValueError
        If the recording cannot be processed or the results cannot be written; the message states
        the reason.
    FileExistsError
        If the results exist and `options.overwrite` is false.
    """
    check_input(source)
    output = absolute(output)
    for conflict in find_conflicts([Pair(source, output)]):
        if conflict:
            raise UnusableOutput(conflict)
    tables = _table_files(source, output, options)
    names = [METADATA_FILE, *(table.file.name for table in tables if table.is_in_results)]
    check_output(output, options.overwrite, [*names, f'{output.name}.mcap'])
    convention = model.convention(options.skeleton)
    summary = Summary(shown(source), shown(output))

    def add_warning(message: str) -> None:
        if displayed := summary.add_warning(message):
            warn(displayed)

    start_s = time.perf_counter()
    progress = progress_bar if show_progress else no_progress

    def report_unused(error: UnusableInput) -> None:
        if summary.count_unused_cue(error.cause, str(error)):
            add_warning(str(error))

    recording = _open_recording(source, options, add_warning, report_unused, progress)
    if options.fuse and len(recording.cameras) == 1:
        add_warning(f'{shown(source)} has one camera only, so that --fuse does not combine any')
    try:
        with translate_os_errors(output), unfinished_folder(output) as folder:
            resume_log = ResumeLog(folder.resume_log, _run_identity(source, options))
            try:
                run = _Run(recording, resume_log, model, convention, options, summary, add_warning)
                run.process_frames(folder, tables, show_progress)
            finally:
                resume_log.close()
            summary.total_s = time.perf_counter() - start_s
            # The results of a bag without frames still have its other messages.
            is_empty = not summary.processed and not isinstance(recording, BagRecording)
            if is_empty:
                run.discard()
            else:
                run.finish(folder, output)
    finally:
        recording.close()
    if is_empty:
        raise UnusableSource(_no_image_error(summary))
    return summary


class _Run:
    """A run of `annotate`."""

    def __init__(
        self,
        recording: Recording,
        resume_log: ResumeLog,
        model: PoseEstimator,
        convention: Convention,
        options: AnnotateOptions,
        summary: Summary,
        warn: Warn,
    ) -> None:
        self._recording = recording
        self._resume_log = resume_log
        self._summary = summary
        processor_type = TrackedFrames if options.follow else IndependentFrames
        self._processor: FrameProcessor = processor_type(model, convention, options)
        # BlazePose forms batches from the people of one image.
        default = 1 if isinstance(model, BlazePoseEstimator) else DEFAULT_BATCH
        self._batch = 1 if options.follow else options.batch or default
        self._fixed_frame = ''
        if options.fuse:
            # The tracker processes the frames of a set together.
            self._batch = len(recording.cameras)
            self._fixed_frame = options.fixed_frame
            names = [own.namespace.strip('/') or 'camera' for own in recording.cameras]
            self._fusion = RecordedFusion(names, options.max_lost, options.smoothing, warn)
        self._warn = warn
        self._fused_ids: set[int] = set()
        self._ids: list[set[int]] = [set() for _ in recording.cameras]
        self._table_files: list[TableFile] = []
        self._tables: list[JointTable] = []

    def process_frames(
        self, folder: UnfinishedFolder, tables: Sequence[TableFile], show_progress: bool
    ) -> None:
        """Process all frames, and write the results to the folder of unfinished results."""
        cameras, copied_topics = self._recording.cameras, self._recording.copied_topics
        self._bag = ResultBag(folder.results, cameras, copied_topics, self._fixed_frame)
        has_several = len(cameras) > 1 or bool(self._fixed_frame)
        self._writer = WriteBehind(WRITE_BEHIND)
        try:
            self._table_files = list(tables)
            for table in tables:
                self._tables.append(table.open(folder, with_camera=has_several))
            total = sum(camera.frames for camera in cameras)
            with tqdm(total=total or None, unit='frame', disable=not show_progress) as progress:
                for batch in self._batches():
                    self._process(batch)
                    progress.update(len(batch))
            if self._fixed_frame:
                self._write_fused(self._fusion.rest())
            self._writer.finish()
            for opened in self._tables:
                opened.close()
        except BaseException:
            with contextlib.suppress(Exception):  # The first exception is raised.
                self._writer.finish()
            for opened in self._tables:
                with contextlib.suppress(Exception):
                    opened.close()
            with contextlib.suppress(Exception):
                self._bag.abort()
            raise
        summary = self._summary
        summary.people = sum(len(ids) for ids in self._ids)
        summary.fused_people = len(self._fused_ids)
        summary.resumed = self._resume_log.replayed
        if self._fixed_frame and not summary.fused_frames and summary.processed:
            self._warn(
                f"no people were fused: no camera has a pose in the frame '{self._fixed_frame}'; "
                'give another frame with --fixed-frame'
            )

    def discard(self) -> None:
        """Close the result bag without completing it."""
        self._bag.abort()

    def finish(self, folder: UnfinishedFolder, output: pathlib.Path) -> None:
        """Complete the results and move them to the output folder."""
        try:
            self._bag.close(json.dumps(dataclasses.asdict(self._summary)))
        except BaseException:
            with contextlib.suppress(Exception):
                self._bag.abort()
            raise
        publish(folder.results, output)
        for table in self._table_files:
            table.publish(folder)

    def _batches(self) -> Iterator[list[RecordedFrame]]:
        """Return frames in batches, and copy the messages between them to the results."""
        waiting: collections.deque[RecordedFrame] = collections.deque()
        # A CameraInfo may follow its image: frames wait for one more frame of each camera.
        lookahead = len(self._recording.cameras)
        for item in ReadAhead(self._recording, READ_AHEAD, size_of):
            if isinstance(item, RecordedFrame):
                self._summary.frames += 1
                waiting.append(item)
                if len(waiting) >= self._batch + lookahead:
                    yield [waiting.popleft() for _ in range(self._batch)]
            else:
                self._writer.put(functools.partial(self._bag.copy_message, item), len(item.data))
        while waiting:
            yield [waiting.popleft() for _ in range(min(self._batch, len(waiting)))]

    def _process(self, frames: Sequence[RecordedFrame]) -> None:
        usable: list[tuple[RecordedFrame, TimedView]] = []
        pixels = 0
        for frame in frames:
            try:
                usable.append((frame, self._recording.view(frame)))
            except UnusableInput as error:
                self._summary.count_unusable(error.cause, str(error))
                continue
            pixels += _pixel_count(usable[-1][1])
            if pixels > MAX_BATCH_PIXELS:
                self._process_and_write(usable)
                usable, pixels = [], 0
        self._process_and_write(usable)

    def _process_and_write(self, frames: Sequence[tuple[RecordedFrame, TimedView]]) -> None:
        for (frame, view), (entry, people) in zip(frames, self._results(frames)):
            if isinstance(entry, Failure):
                self._summary.count_unusable(entry.cause, entry.message)
            if people is not None:
                self._write(frame, view.view.camera, people)
                self._fuse(frame, view.view, people)

    def _results(self, frames: Sequence[tuple[RecordedFrame, TimedView]]) -> list[ProcessedFrame]:
        """Return the results of frames: from the resume log as far as it goes, then new ones."""
        results: list[ProcessedFrame] = []
        for frame, view in frames:
            numbers = self._resume_log.replay(Key(frame.camera, frame.stamp_ns))
            if numbers is None:
                break
            entry = parse_entry(numbers)
            results.append(ProcessedFrame(entry, self._processor.replay(view, entry)))
        new = frames[len(results) :]
        if new:
            start_s = time.perf_counter()
            processed = self._processor.process([view for _, view in new])
            self._summary.estimator_s += time.perf_counter() - start_s
            self._resume_log.append_batch(
                [
                    (Key(frame.camera, frame.stamp_ns), result.entry.to_numbers())
                    for (frame, _), result in zip(new, processed)
                ]
            )
            results += processed
        return results

    def _fuse(self, frame: RecordedFrame, view: View, people: People) -> None:
        """Add the people of a frame to the fusion, if its camera has a pose."""
        if isinstance(frame.pose, UnusableInput):
            if self._summary.count_unused_cue(frame.pose.cause, str(frame.pose)):
                self._warn(str(frame.pose))
        elif self._fixed_frame:
            self._write_fused(self._fusion.add(frame, view.camera, view.image.shape, people))

    def _write_fused(self, frames: Sequence[FusedFrame]) -> None:
        for fused in frames:
            self._writer.put(functools.partial(self._write_fused_people, fused))
            self._summary.fused_frames += 1
            self._summary.fused_sightings += len(fused.people)
            self._fused_ids.update(fused.people.ids.tolist())

    def _write_fused_people(self, fused: FusedFrame) -> None:
        """Write fused people, in the writing thread."""
        self._bag.write_fused(fused)
        for table in self._tables:
            table.write(fused.stamp_ns, SKELETONS_TOPIC, fused.people)

    def _write(self, frame: RecordedFrame, camera: Camera, people: People) -> None:
        # The queue must not hold the images.
        without_images = frame._replace(content=None, depth=None)
        self._writer.put(functools.partial(self._write_people, without_images, people, camera))
        self._summary.processed += 1
        self._summary.skeletons += len(people)
        self._ids[frame.camera].update(people.ids[people.ids != UNKNOWN_ID].tolist())

    def _write_people(self, frame: RecordedFrame, people: People, camera: Camera) -> None:
        """Write the people of a frame, in the writing thread."""
        recorded_camera = self._recording.cameras[frame.camera]
        self._bag.write_people(frame, people, camera, recorded_camera.prefix)
        for table in self._tables:
            table.write(frame.stamp_ns, recorded_camera.source, people)


def _pixel_count(view: TimedView) -> int:
    """Return the number of pixels of an image and its depth image."""
    height, width = view.view.image.shape[:2]
    return height * width + (0 if view.depth is None else view.depth.depth_mm.size)


def _no_image_error(summary: Summary) -> str:
    examples = [example for _, example in summary.unusable.values()]
    if not examples:
        return f'{summary.source} has no images'
    return f'{summary.source} has no images that can be processed: {examples[0]}'


def _table_files(
    source: pathlib.Path, output: pathlib.Path, options: AnnotateOptions
) -> list[TableFile]:
    """Return the files of the requested tables; raise an `UnusableOutput` if one is unusable."""
    inputs = [source, *_additional_inputs(options)]
    tables = [
        TableFile.from_option(kind, target, output, inputs, options.overwrite)
        for kind, target in (('csv', options.csv), ('parquet', options.parquet))
        if target is not None
    ]
    files = [absolute(table.file) for table in tables]
    if len(set(files)) < len(files):
        raise UnusableOutput(f'--csv and --parquet name the same file {shown(tables[0].file)}')
    return tables


def _additional_inputs(options: AnnotateOptions) -> list[pathlib.Path]:
    """Return the files and folders that are read in addition to the recording."""
    paths = [pathlib.Path(options.model), pathlib.Path(options.detector.partition(':')[2] or '-')]
    files = (options.camera_info, options.calibration, options.skeleton_file)
    paths += [own for own in files if own is not None]
    return [path for path in paths if os.path.exists(path)]


def _open_recording(
    source: pathlib.Path,
    options: AnnotateOptions,
    warn: Warn,
    report_unused: Callable[[UnusableInput], None],
    progress: Progress,
) -> Recording:
    calibration: Calibration | None = None
    if options.camera_info is not None:
        calibration = read_calibration(options.camera_info)
    copy_messages = not options.only_results
    fixed_frame = options.fixed_frame if options.fuse else ''
    if is_bag(source):
        bag = Bag(source, warn, progress)
        try:
            return BagRecording(
                bag,
                calibration,
                options.fov_degrees,
                options.topics,
                copy_messages,
                warn,
                CueOptions(
                    options.depth, options.ground_frame, options.ground_height, fixed_frame
                ),
                report_unused,
            )
        except BaseException:
            bag.close()
            raise
    for name, value in (('--depth', options.depth), ('--ground-frame', options.ground_frame)):
        if value:
            raise UnusableSource(
                f'{name} needs a bag, and {shown(source)} is none; images and videos have no '
                'depth images or transforms. --stature METRES can be used'
            )
    if options.fuse:
        if not is_folder(source):
            raise UnusableSource(
                f'--fuse needs a bag or a folder of videos, and {shown(source)} is neither'
            )
        if options.camera_info is not None or options.fov_degrees:
            raise UnusableSource(
                '--camera-info and --fov have no effect on a folder of videos with --fuse; '
                '--calibration has the intrinsics and the poses of all cameras'
            )
        return open_videos(source, options.calibration, fixed_frame, copy_messages, warn)
    images = Source(str(source), still_frames=1)
    if calibration is None and not options.fov_degrees:
        warn(
            f'{shown(source)} has no calibration: a field of view of {DEFAULT_FOV_DEGREES:g} '
            'degrees is assumed, so that distances are approximate; give a calibration with '
            '--camera-info FILE, or the field of view with --fov DEGREES'
        )
    fov_degrees = options.fov_degrees or DEFAULT_FOV_DEGREES
    return ImageRecording(images, calibration, fov_degrees, copy_messages)


def _run_identity(source: pathlib.Path, options: AnnotateOptions) -> dict[str, object]:
    """Return everything that the estimated people depend on."""
    ignored = {*OPTIONS_WITHOUT_EFFECT, *(() if options.follow else TRACKING_OPTIONS)}
    values = {
        name: value for name, value in dataclasses.asdict(options).items() if name not in ignored
    }
    values['camera_info'] = (
        options.camera_info.read_text(encoding='utf-8') if options.camera_info else ''
    )
    values['topics'] = list(options.topics)
    values['calibration'] = str(options.calibration or '')
    values['skeleton_file'] = str(options.skeleton_file or '')
    # A folder of videos can have them, and their calibration, in these folders.
    folders = [source / name for name in (VIDEO_FOLDER, CALIBRATION_FOLDER)]
    folders = [own for own in folders if options.fuse and own.is_dir()]
    return {
        'version': metrabs_ros.__version__,
        'source': [_file_states(path) for path in (source, *folders)],
        'weights': [_file_states(path) for path in _additional_inputs(options)],
        **values,
    }


def _file_states(path: pathlib.Path) -> list[tuple[str, int, int]]:
    """Return the names, sizes in bytes and modification times in ns of a file or a folder."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [_file_state(file) for file in files]


def _file_state(file: pathlib.Path) -> tuple[str, int, int]:
    try:
        status = file.stat()
    except OSError:  # For example a link to a file that does not exist.
        return file.name, 0, 0
    return file.name, status.st_size, status.st_mtime_ns
