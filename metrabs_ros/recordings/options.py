"""Options and summary of annotate."""

from __future__ import annotations

import dataclasses
import math
import pathlib

import metrabs_ros
from metrabs_ros.foreign_text import printable
from metrabs_ros.options import MAX_STATURE_MM, MIN_STATURE_MM
from metrabs_ros.pose_estimator import PoseEstimator
from metrabs_ros.regular_file import shown

RANGES = (
    ('threads', 0, math.inf),
    ('num_aug', 1, math.inf),
    ('detector_threshold', 0, 1),
    ('batch', 0, 10_000),
    ('smoothing', 0, 1),
    ('max_lost', 0, 1e6),
    ('fov_degrees', 0, 179),
    ('ground_height', -1e4, 1e4),
    ('stature', MIN_STATURE_MM / 1000, MAX_STATURE_MM / 1000),
)
"""Name, minimum and maximum of each option that is a number."""
MAX_CAUSES, MAX_WARNINGS = 20, 50
OTHER_CAUSES = 'other causes'
"""Key under which images are counted beyond `MAX_CAUSES` different causes."""
MAX_WARNING_CHARS = 1500
MAX_CAUSE_CHARS, MAX_EXAMPLE_CHARS = 80, 500


@dataclasses.dataclass(frozen=True)
class AnnotateOptions:
    """
    Options of `annotate`.

    Parameters
    ----------
    model, engine, precision, device, detector, threads
        Arguments of `metrabs_ros.load_model`.
    skeleton
        Joint convention; empty for all joints of the model.
    skeleton_file
        File of skeleton definitions; None for those of the model only.
    num_aug
        Number of augmented crops per person.
    detector_threshold
        Minimum score of a detection; None for the default of the detector.
    batch
        Number of frames per batch; 0 for the default of the model.
    follow
        Run full-image detection only in some frames, and estimate known people at their
        predicted positions, as the node does.  This is several times faster, but the results of a
        frame depend on the frames before it.
    smoothing, max_lost
        Arguments of `Tracker` and `PeopleFusion`.  A smoothing of None is 0 in each camera, and
        the default of the fusion.
    fuse
        Fuse the people of all cameras in a fixed frame; implies `follow`.
    fixed_frame
        TF frame with z up, in which the people of several cameras are fused.
    calibration
        Calibrations and poses of the cameras of a folder of videos, as for
        `rig_calibration.read_rig`; None to find it in the folder.
    camera_info
        Calibration file of all cameras; None to use the calibration in the recording.
    fov_degrees
        Field of view of cameras without calibration, in degrees; 0 to skip these cameras.
    topics
        Image topics to process; empty to select one per camera.
    depth
        Topic of the depth images for the size of people; ``auto`` to select one per camera, empty
        to use none.
    ground_frame
        TF frame with z up, in which the floor is a horizontal plane; empty if there is none.
    ground_height
        Height of the floor in this frame, in metres.
    stature
        Stature of all people in metres; None if it is not known.
    only_results
        Do not copy the messages of the recording to the results.
    csv, parquet
        File of a table of joints; None for no table, empty for a file in the folder of the
        results.
    overwrite
        Replace existing results.
    """

    model: str = 'blazepose'
    engine: str = 'auto'
    precision: str = 'auto'
    device: str = 'auto'
    detector: str = 'auto'
    threads: int = 0
    skeleton: str = ''
    skeleton_file: pathlib.Path | None = None
    num_aug: int = 1
    detector_threshold: float | None = None
    batch: int = 0
    follow: bool = False
    smoothing: float | None = None
    max_lost: float = 1.0
    fuse: bool = False
    fixed_frame: str = 'map'
    calibration: pathlib.Path | None = None
    camera_info: pathlib.Path | None = None
    fov_degrees: float = 0.0
    topics: tuple[str, ...] = ()
    depth: str = ''
    ground_frame: str = ''
    ground_height: float = 0.0
    stature: float | None = None
    only_results: bool = False
    csv: str | None = None
    parquet: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        """
        Check the ranges of numbers.

        Raises
        ------
        ValueError
            If a number is out of range, or has no effect; the message names the option.
        """
        for name, low, high in RANGES:
            value = getattr(self, name)
            # The condition also rejects NaN.
            if value is not None and not low <= value <= high:
                limits = f'from {low:g} to {high:g}' if high < math.inf else f'at least {low:g}'
                raise ValueError(f'{name} is {value}; it must be {limits}')
        if self.ground_height and not self.ground_frame:
            raise ValueError(
                f'ground_height is {self.ground_height}, but ground_frame is empty; it must be '
                'the name of a TF frame with z up'
            )
        if not self.fixed_frame.strip('/'):
            raise ValueError('fixed_frame is empty; it must be the name of a TF frame with z up')
        if self.calibration is not None and not self.fuse:
            raise ValueError(
                f'calibration is {shown(self.calibration)}, but fuse is not set; it has an effect '
                'only with --fuse, and --camera-info FILE is the calibration of a single camera'
            )
        # As in tf2, names have no leading slash.
        object.__setattr__(self, 'fixed_frame', self.fixed_frame.strip('/'))
        # The fusion needs the tracks of each camera.
        object.__setattr__(self, 'follow', self.follow or self.fuse)

    def load_model(self) -> PoseEstimator:
        """Load the model that these options select."""
        return metrabs_ros.load_model(
            self.model,
            self.engine,
            self.precision,
            self.device,
            self.detector,
            self.threads,
            skeletons=self.skeleton_file or '',
        )


@dataclasses.dataclass
class Summary:
    """
    Statistics and warnings of a run of `annotate`.

    The results store it as JSON in their metadata, so that the names of the fields are part of
    the file format.

    Parameters
    ----------
    source, output
        Paths of the recording and of the results.
    frames
        Number of images.
    processed
        Number of processed images.
    resumed
        Number of images that an interrupted run had processed before.
    skeletons
        Number of people, summed over the frames.
    people
        Number of different ids.
    fused_frames, fused_sightings, fused_people
        Number of frame sets of several cameras, of fused people, summed over the sets, and of
        their ids.
    unusable
        Number of images that were not processed, and an example, by cause.
    unused_cues
        Number of images in which a cue of the person scale could not be used, and an example, by
        cue and cause.
    warnings
        Warnings.
    estimator_s, total_s
        Running time of the networks, and of the whole run, in seconds.
    """

    source: str
    output: str
    frames: int = 0
    processed: int = 0
    resumed: int = 0
    skeletons: int = 0
    people: int = 0
    fused_frames: int = 0
    fused_sightings: int = 0
    fused_people: int = 0
    unusable: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)
    unused_cues: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    estimator_s: float = 0.0
    total_s: float = 0.0

    def count_unusable(self, cause: str, example: str) -> None:
        """Count an image that was not processed; both texts may be untrusted."""
        _count(self.unusable, cause, example)

    def count_unused_cue(self, cause: str, example: str) -> bool:
        """Count an image in which a cue was not used; return whether this cause is new."""
        return _count(self.unused_cues, cause, example)

    def add_warning(self, message: str) -> str:
        """
        Add a warning, unless it is known or there are too many.

        Parameters
        ----------
        message
            The warning; it may contain untrusted text.

        Returns
        -------
        The message to display; empty if the warning was not added.
        """
        message = printable(message, MAX_WARNING_CHARS)
        if message in self.warnings or len(self.warnings) > MAX_WARNINGS:
            return ''
        if len(self.warnings) == MAX_WARNINGS:
            message = 'further warnings are omitted'
        self.warnings.append(message)
        return message

    def lines(self) -> list[str]:
        """Return the lines of the summary that the command line displays."""
        lines = [
            f'{shown(self.source)}: {self.processed} of {self.frames} frames, '
            f'{self.skeletons / max(self.processed, 1):.1f} people per frame, {self.people} ids, '
            f'{self.total_s:.0f} s; results in {shown(self.output)}'
        ]
        if self.fused_frames:
            lines.append(
                f'fused: {self.fused_frames} frame sets, '
                f'{self.fused_sightings / self.fused_frames:.1f} people per set, '
                f'{self.fused_people} ids'
            )
        if self.resumed:
            lines.append(f'{self.resumed} frames had been processed before the interruption')
        lines += [
            f'{count} frames were not processed, {cause}: {example}'
            for cause, (count, example) in self.unusable.items()
        ]
        lines += [
            f'{count} frames without {cause}: {example}'
            for cause, (count, example) in self.unused_cues.items()
        ]
        if not self.frames:
            lines.append('the recording has no images')
        return lines


def _count(counts: dict[str, tuple[int, str]], cause: str, example: str) -> bool:
    """Count a cause with its first example; return whether it is the first one of this cause."""
    cause = printable(cause, MAX_CAUSE_CHARS)
    if cause not in counts and len(counts) >= MAX_CAUSES:
        cause = OTHER_CAUSES
    is_new = cause not in counts
    count, first = counts.get(cause, (0, printable(example, MAX_EXAMPLE_CHARS)))
    counts[cause] = count + 1, first
    return is_new
