"""What is wanted of a recording, and what came of it."""

from __future__ import annotations

import dataclasses
import math
import pathlib

import metrabs_ros
from metrabs_ros.foreign_text import printable
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
)
MAX_CAUSES, MAX_WARNINGS = 20, 50
OTHER_CAUSES = 'other causes'
MAX_WARNING_CHARS = 1500
MAX_CAUSE_CHARS, MAX_EXAMPLE_CHARS = 80, 500


@dataclasses.dataclass(frozen=True)
class AnnotateOptions:
    """
    What is wanted of a recording.

    Parameters
    ----------
    model, engine, precision, device, detector, threads
        As `metrabs_ros.load_model` takes them.
    skeleton
        The convention of the joints; empty for all joints of the model.
    num_aug
        How many crops of each person are looked at.
    detector_threshold
        The lowest score of a detection; None for what suits the detector.
    batch
        How many frames go through the network together; 0 for what suits the model.
    follow
        Look for new people only now and then, and for known ones where they are expected, as the
        node does: several times as fast, but each frame is found by what was before.
    smoothing, max_lost
        As `Tracker` takes them.
    camera_info
        A file with the calibration of the cameras; None for what the recording has.
    fov_degrees
        The field of view of cameras without calibration; 0 refuses them.
    topics
        The image topics to work on; by default one a camera.
    only_results
        Leave out what the recording has.
    csv, parquet
        Where a table of joints is written; None for none, empty for beside the results' bag.
    overwrite
        Replace results that are there.
    """

    model: str = 'blazepose'
    engine: str = 'auto'
    precision: str = 'auto'
    device: str = 'auto'
    detector: str = 'auto'
    threads: int = 0
    skeleton: str = ''
    num_aug: int = 1
    detector_threshold: float | None = None
    batch: int = 0
    follow: bool = False
    smoothing: float = 0.0
    max_lost: float = 1.0
    camera_info: pathlib.Path | None = None
    fov_degrees: float = 0.0
    topics: tuple[str, ...] = ()
    only_results: bool = False
    csv: str | None = None
    parquet: str | None = None
    overwrite: bool = False

    def __post_init__(self) -> None:
        """
        Check the numbers.

        Raises
        ------
        ValueError
            If one is out of range; the message names it.
        """
        for name, low, high in RANGES:
            value = getattr(self, name)
            # Also not a number is not in a range.
            if value is not None and not low <= value <= high:
                at_most = f' to {high:g}' if high < math.inf else ''
                raise ValueError(f'{name} is {value}; it must be from {low:g}{at_most}')

    def load_model(self) -> PoseEstimator:
        """Load the model."""
        return metrabs_ros.load_model(
            self.model, self.engine, self.precision, self.device, self.detector, self.threads
        )


@dataclasses.dataclass
class Summary:
    """
    What came of a recording.

    Parameters
    ----------
    source, output
        The recording and the results.
    frames
        How many images there were.
    worked_on
        How many of them could be worked on.
    resumed
        How many of the images an interrupted run had done before.
    sightings
        How many people were found, summed over the frames.
    people
        How many different ones.
    unusable
        Why frames could not be worked on: how many, and an example.
    remarks
        What was not as it should be.
    estimator_s, total_s
        How long the networks took, and everything.
    """

    source: str
    output: str
    frames: int = 0
    worked_on: int = 0
    resumed: int = 0
    sightings: int = 0
    people: int = 0
    unusable: dict[str, tuple[int, str]] = dataclasses.field(default_factory=dict)
    remarks: list[str] = dataclasses.field(default_factory=list)
    estimator_s: float = 0.0
    total_s: float = 0.0

    def count_unusable(self, cause: str, why: str) -> None:
        """Count a frame that could not be worked on; both texts may come from anywhere."""
        cause = printable(cause, MAX_CAUSE_CHARS)
        if cause not in self.unusable and len(self.unusable) >= MAX_CAUSES:
            cause = OTHER_CAUSES
        count, example = self.unusable.get(cause, (0, printable(why, MAX_EXAMPLE_CHARS)))
        self.unusable[cause] = count + 1, example

    def add_warning(self, sentence: str) -> str:
        """
        Take note of a sentence about what was not as it should be.

        Returns
        -------
        What is to be said: nothing if it is known already, or there are too many.
        """
        sentence = printable(sentence, MAX_WARNING_CHARS)
        if sentence in self.remarks or len(self.remarks) > MAX_WARNINGS:
            return ''
        if len(self.remarks) == MAX_WARNINGS:
            sentence = 'there were more remarks, which are left out'
        self.remarks.append(sentence)
        return sentence

    def lines(self) -> list[str]:
        """Say in a few sentences what came of it."""
        said = [
            f'{shown(self.source)}: {self.worked_on} of {self.frames} frames, '
            f'{self.sightings / max(self.worked_on, 1):.1f} people a frame, {self.people} in all, '
            f'{self.total_s:.0f} s; results in {shown(self.output)}'
        ]
        if self.resumed:
            said.append(f'{self.resumed} frames had been worked on before the interruption')
        said += [
            f'{count} frames were not worked on, {cause}: {example}'
            for cause, (count, example) in self.unusable.items()
        ]
        if not self.frames:
            said.append('there were no images in it')
        return said
