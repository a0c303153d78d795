"""Finding the people in every frame of a recording, and writing them beside it."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import fcntl
import functools
import json
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

import metrabs_ros
from metrabs_ros.camera import Camera
from metrabs_ros.estimator import DEFAULT_FOV_DEGREES, Options, PoseEstimator, View
from metrabs_ros.estimators.blazepose import BlazePoseEstimator
from metrabs_ros.messages.unusable import UnusableInput
from metrabs_ros.people import UNKNOWN_ID, People
from metrabs_ros.recordings.bag_recording import BagRecording
from metrabs_ros.recordings.bags import Bag, is_bag
from metrabs_ros.recordings.beside import ReadAhead, WriteBehind
from metrabs_ros.recordings.calibration import Calibration, read_calibration
from metrabs_ros.recordings.journal import Journal, Key, from_numbers, to_numbers
from metrabs_ros.recordings.picture_recording import PictureRecording
from metrabs_ros.recordings.pictures import Source
from metrabs_ros.recordings.recorded import RESULTS_SUFFIX
from metrabs_ros.recordings.recording import Frame, Recording
from metrabs_ros.recordings.results import ResultBag
from metrabs_ros.recordings.tables import CsvTable, JointTable, ParquetTable
from metrabs_ros.recordings.wanted import Summary, Wanted
from metrabs_ros.skeleton import Convention
from metrabs_ros.tracking.by_boxes import as_people
from metrabs_ros.tracking.shot import Shot
from metrabs_ros.tracking.stream import finder_for
from metrabs_ros.tracking.tracker import Tracker

Tell = Callable[[str], None]

UNFINISHED = '.unfinished'
READ_AHEAD = WRITE_BEHIND = 16
"""So many messages wait between the threads."""
USUAL_BATCH = 8
MIN_HITS = 1
"""What is found in a recording is written from the first frame on."""


def results_of(source: pathlib.Path) -> pathlib.Path:
    """Return where the results of a recording are written by default."""
    stem = source.name if source.is_dir() else source.stem
    return source.resolve().parent / f'{stem}{RESULTS_SUFFIX}'


def annotate(
    source: pathlib.Path,
    output: pathlib.Path,
    wanted: Wanted,
    model: PoseEstimator,
    tell: Tell = print,
    show_progress: bool = False,
) -> Summary:
    """
    Find the people in every frame of a recording.

    Results appear when they are whole.  A run that was interrupted goes on where it stopped when
    it is started again.

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
        If nothing can be worked on; the message says why.
    FileExistsError
        If there are results already.
    """
    if output.exists() and not wanted.overwrite:
        raise FileExistsError(f'{output} is there already; --overwrite replaces it')
    convention = model.convention(wanted.skeleton)
    summary = Summary(str(source), str(output))

    def remark(sentence: str) -> None:
        if sentence not in summary.remarks:
            summary.remarks.append(sentence)
            tell(sentence)

    start_s = time.perf_counter()
    recording = _open(source, wanted, remark)
    try:
        with _unfinished(output) as folder:
            journal = Journal(folder / 'journal', _identity(source, wanted))
            try:
                run = _Run(recording, journal, model, convention, wanted, summary)
                run.work(folder / output.name, show_progress)
            finally:
                journal.close()
            summary.total_s = time.perf_counter() - start_s
            run.finish(folder / output.name, output)
    finally:
        recording.close()
    return summary


class _Run:
    """A recording on its way."""

    def __init__(
        self,
        recording: Recording,
        journal: Journal,
        model: PoseEstimator,
        convention: Convention,
        wanted: Wanted,
        summary: Summary,
    ) -> None:
        self._recording = recording
        self._journal = journal
        self._model = model
        self._convention = convention
        self._wanted = wanted
        self._summary = summary
        self._options = Options(
            num_aug=wanted.num_aug, detector_threshold=wanted.detector_threshold
        )
        model.check(self._options)
        self._trackers = [
            Tracker(wanted.max_lost, MIN_HITS, wanted.smoothing) for _ in recording.cameras
        ]
        self._finders = [finder_for(model, self._options) for _ in recording.cameras]
        # Who is followed is known by all joints of the network.
        self._skeleton = model.skeleton if wanted.follow else convention.skeleton
        # BlazePose has its own batches of one image's tiles and people.
        usual = 1 if isinstance(model, BlazePoseEstimator) else USUAL_BATCH
        self._batch = 1 if wanted.follow else wanted.batch or usual
        self._ids: list[set[int]] = [set() for _ in recording.cameras]
        self._tables: list[JointTable] = []

    def work(self, folder: pathlib.Path, show_progress: bool) -> None:
        """Work on all frames, and write the results into a folder."""
        shutil.rmtree(folder, ignore_errors=True)
        cameras, kept = self._recording.cameras, self._recording.kept
        self._bag = ResultBag(folder, cameras, kept)
        self._behind = WriteBehind(WRITE_BEHIND)
        try:
            self._tables = self._open_tables(folder)
            total = sum(camera.frames for camera in cameras)
            with tqdm(total=total or None, unit='frame', disable=not show_progress) as progress:
                for batch in self._batches():
                    self._work_on(batch)
                    progress.update(len(batch))
            self._behind.finish()
            for table in self._tables:
                table.close()
        except BaseException:
            with contextlib.suppress(Exception):  # There is another reason to stop already.
                self._behind.finish()
            self._bag.abort()
            raise
        summary = self._summary
        summary.people = sum(len(ids) for ids in self._ids)
        summary.resumed = self._journal.replayed

    def finish(self, folder: pathlib.Path, output: pathlib.Path) -> None:
        """Put whole results where they belong."""
        self._bag.close(json.dumps(dataclasses.asdict(self._summary)))
        if output.exists():
            shutil.rmtree(output)
        os.replace(folder, output)

    def _open_tables(self, folder: pathlib.Path) -> list[JointTable]:
        several = len(self._recording.cameras) > 1
        tables: list[JointTable] = []
        if self._wanted.csv is not None:
            tables.append(
                CsvTable(pathlib.Path(self._wanted.csv or folder / 'joints.csv'), several)
            )
        if self._wanted.parquet is not None:
            file = pathlib.Path(self._wanted.parquet or folder / 'joints.parquet')
            tables.append(ParquetTable(file, several))
        return tables

    def _batches(self) -> Iterator[list[Frame]]:
        """Return frames in batches, and keep the messages between them."""
        waiting: collections.deque[Frame] = collections.deque()
        # A camera's calibration may come just after its image: one frame waits longer.
        lookahead = len(self._recording.cameras)
        for item in ReadAhead(self._recording, READ_AHEAD):
            if isinstance(item, Frame):
                self._summary.frames += 1
                waiting.append(item)
                if len(waiting) >= self._batch + lookahead:
                    yield [waiting.popleft() for _ in range(self._batch)]
            else:
                self._behind.put(functools.partial(self._bag.keep, item))
        while waiting:
            yield [waiting.popleft() for _ in range(min(self._batch, len(waiting)))]

    def _work_on(self, frames: Sequence[Frame]) -> None:
        usable = []
        for frame in frames:
            try:
                usable.append((frame, self._recording.view(frame)))
            except UnusableInput as unusable:
                self._summary.leave_out(unusable.cause, str(unusable))
        for (frame, view), found in zip(usable, self._found(usable)):
            if found is not None:
                self._write(frame, view, found)

    def _found(self, frames: Sequence[tuple[Frame, View]]) -> Iterator[People | None]:
        """Return whom each frame shows: as an earlier run found them, or as they are found now."""
        new = []
        for i, (frame, view) in enumerate(frames):
            known = self._journal.take(Key(frame.camera, frame.stamp_ns))
            if known is None:
                new = list(frames[i:])
                break
            yield from_numbers(known, self._skeleton, view.image.shape)
        start_s = time.perf_counter()
        found = self._people(new) if new else []
        self._summary.estimator_s += time.perf_counter() - start_s
        for (frame, _), people in zip(new, found):
            if people is not None:
                self._journal.put(Key(frame.camera, frame.stamp_ns), to_numbers(people))
            yield people

    def _people(self, frames: Sequence[tuple[Frame, View]]) -> list[People | None]:
        """Find the people in frames; None where the network fails."""
        try:
            if self._wanted.follow:
                return [self._followed(frame, view) for frame, view in frames]
            poses = self._model.find_people_in([view for _, view in frames], self._options)
        except Exception as error:  # Whatever it is, the other frames shall not suffer.
            if len(frames) > 1:
                return [people for frame in frames for people in self._people([frame])]
            self._summary.leave_out(f'failed: {type(error).__name__}', str(error))
            return [None]
        everybody = [
            as_people(own, self._model.skeleton, view.image.shape)
            for own, (_, view) in zip(poses, frames)
        ]
        return [
            people.select(people.finite()).in_convention(self._convention) for people in everybody
        ]

    def _followed(self, frame: Frame, view: View) -> People:
        """Find people where they are expected."""
        stamp_s = frame.stamp_ns * 1e-9
        image, camera = view
        expected = self._trackers[frame.camera].expect(stamp_s, camera, image.shape)
        found = self._finders[frame.camera](Shot(view, stamp_s), expected)
        return found.select(found.finite())

    def _write(self, frame: Frame, view: View, found: People) -> None:
        tracker = self._trackers[frame.camera]
        people = _with_identities(found, tracker, frame.stamp_ns, view)
        if self._wanted.follow:
            self._finders[frame.camera].recognise(tracker.ids_of_found)
            people = people.in_convention(self._convention)
        # The image itself need not wait.
        about = frame._replace(content=None)
        self._behind.put(functools.partial(self._write_out, about, people, view.camera))
        self._summary.worked_on += 1
        self._summary.sightings += len(people)
        self._ids[frame.camera].update(people.ids[people.ids != UNKNOWN_ID].tolist())

    def _write_out(self, frame: Frame, people: People, taken_by: Camera) -> None:
        """Write the people of a frame, beside the network."""
        camera = self._recording.cameras[frame.camera]
        self._bag.put(frame, people, taken_by, camera.prefix)
        for table in self._tables:
            table.put(frame.stamp_ns, camera.source, people)


def _with_identities(found: People, tracker: Tracker, stamp_ns: int, view: View) -> People:
    """
    Return all people found in a frame with what only their past tells.

    Nobody who was not found is made up, and nobody who was found is left out: whom the tracker
    takes for somebody else's second pose has the id UNKNOWN_ID.
    """
    image, camera = view
    tracked = tracker.update(found, stamp_ns * 1e-9, camera, image.shape)
    ids = tracker.ids_of_found
    rows = {int(person_id): i for i, person_id in enumerate(tracked.ids)}
    known = np.array([i for i, person_id in enumerate(ids) if int(person_id) in rows], int)
    of_known = np.array([rows[int(ids[i])] for i in known], int)
    arrays: dict[str, Any] = {'ids': np.full(len(found), UNKNOWN_ID)}
    arrays['ids'][known] = ids[known]
    for name in ('poses3d_mm', 'poses2d_px', 'in_view', 'velocities_mm_s', 'ages_s'):
        arrays[name] = getattr(found, name).copy()
        arrays[name][known] = getattr(tracked, name)[of_known]
    return dataclasses.replace(found, **arrays)


def _open(source: pathlib.Path, wanted: Wanted, tell: Tell) -> Recording:
    calibration: Calibration | None = None
    if wanted.camera_info is not None:
        calibration = read_calibration(wanted.camera_info)
    keep = not wanted.only_results
    if is_bag(source):
        bag = Bag(source, tell)
        try:
            return BagRecording(bag, calibration, wanted.fov_degrees, wanted.topics, keep, tell)
        except ValueError:
            bag.close()
            raise
    pictures = Source(str(source), still_frames=1)
    if calibration is None and not wanted.fov_degrees:
        tell(
            f'{source} has no calibration: a field of view of {DEFAULT_FOV_DEGREES:g} degrees is '
            'guessed, and distances are only as true as that; --camera-info FILE or --fov DEGREES '
            'says better'
        )
    fov_degrees = wanted.fov_degrees or DEFAULT_FOV_DEGREES
    return PictureRecording(pictures, calibration, fov_degrees, keep)


@contextlib.contextmanager
def _unfinished(output: pathlib.Path) -> Iterator[pathlib.Path]:
    """Give a folder for what is on its way to the results; it stays if it does not get there."""
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = output.parent / f'{output.name}{UNFINISHED}'
    folder.mkdir(exist_ok=True)
    with open(folder / 'lock', 'w') as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ValueError(f'another run is writing {output}') from error
        yield folder
        shutil.rmtree(folder)


def _identity(source: pathlib.Path, wanted: Wanted) -> dict[str, object]:
    """Return all that what is found depends on."""
    about = {
        name: value
        for name, value in dataclasses.asdict(wanted).items()
        if name not in ('batch', 'smoothing', 'max_lost', 'only_results', 'csv', 'parquet')
        and name not in ('overwrite', 'threads')
    }
    about['camera_info'] = (
        wanted.camera_info.read_text(encoding='utf-8') if wanted.camera_info else ''
    )
    about['topics'] = list(wanted.topics)
    return {
        'version': metrabs_ros.__version__,
        'source': _files_of(source),
        'weights': _files_of(pathlib.Path(wanted.model)),
        **about,
    }


def _files_of(path: pathlib.Path) -> list[tuple[str, int, int]]:
    """Return the files of a folder, or a file: name, size, and when it was changed."""
    files = sorted(path.iterdir()) if path.is_dir() else [path] if path.exists() else []
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
