"""The command annotate: detect people in recordings."""

from __future__ import annotations

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from metrabs_ros.backends.openvino import import_openvino
from metrabs_ros.commands.errors import INTERRUPTED_STATUS, print_error
from metrabs_ros.commands.requirements import require_package
from metrabs_ros.regular_file import shown
from metrabs_ros.weights import store

if TYPE_CHECKING:
    from metrabs_ros.recordings.parallel import Outcome, Task


def add_parser(commands: Any) -> None:
    """Add the command to the subparsers of the command line."""
    parser = commands.add_parser(
        'annotate',
        help='detect people in recordings: ROS 1 and ROS 2 bags, videos, image folders',
    )
    parser.add_argument(
        'input', nargs='+', type=pathlib.Path, help='recordings, or folders that contain bags'
    )
    parser.add_argument(
        '-o',
        '--output',
        type=pathlib.Path,
        help='folder of the results; for several recordings, the folder of these folders',
    )
    _add_options(parser)
    parser.add_argument(
        '--workers', type=int, default=1, help='number of recordings processed in parallel'
    )
    parser.add_argument(
        '--ray',
        metavar='ADDRESS',
        help='process on a Ray cluster; "local" starts one on this machine',
    )
    module = 'metrabs_ros.recordings.parallel'
    parser.set_defaults(run=run, module=module, imports=(import_openvino,))


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add one argument for each field of `AnnotateOptions`, with the same name."""
    add = parser.add_argument
    add(
        '--model',
        default='blazepose',
        help=f'{", ".join(store.MODELS)} or a checkpoint',
    )
    add('--engine', default='auto', help='auto, torch, tensorrt, tensorrt_rtx or openvino')
    add('--precision', default='auto', help='auto, fp32, fp16 or bf16')
    add('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    add('--detector', default='auto', help='auto, movenet, onnx:FILE or ultralytics:NAME')
    add('--threads', type=int, default=0, help='CPU threads of each network; 0: one per core')
    add('--skeleton', default='', help='joint convention; default: all joints of the network')
    add(
        '--skeleton-file',
        type=pathlib.Path,
        metavar='FILE',
        help='skeleton definitions, whose names --skeleton accepts',
    )
    add('--num-aug', type=int, default=1, help='number of test-time augmentations')
    add('--detector-threshold', type=float, help='minimum detection score, from 0 to 1')
    add('--batch', type=int, default=0, help='frames per batch of the network; 0: default')
    add(
        '--follow',
        action='store_true',
        help='run full-image detection only in some frames, as the node does; faster',
    )
    add(
        '--smoothing',
        type=float,
        help='temporal smoothing from 0 (none) to 1 (strongest); default: 0, fused people 0.5',
    )
    add('--max-lost', type=float, default=1.0, help='seconds until a lost track is deleted')
    add(
        '--fuse',
        action='store_true',
        help='fuse the people of all cameras of a bag, or of a folder of synchronised videos, in '
        'a fixed frame; implies --follow',
    )
    add(
        '--fixed-frame',
        default='map',
        metavar='FRAME',
        help='TF frame with z up in which people are fused; default: map',
    )
    add(
        '--calibration',
        type=pathlib.Path,
        metavar='PATH',
        help='with --fuse, of a folder of videos: .toml of Pose2Sim, .qca.txt of Qualisys, or a '
        'folder with CAMERA.yaml (ROS calibration) and extrinsics.yaml; default: the one in its '
        'folder calibration/',
    )
    add(
        '--camera-info',
        type=pathlib.Path,
        metavar='FILE',
        help='calibration of all cameras, from camera_calibration or ros2 topic echo',
    )
    add(
        '--fov',
        dest='fov_degrees',
        type=float,
        default=0.0,
        metavar='DEGREES',
        help='field of view across the longer side, for cameras without calibration',
    )
    add('--topics', nargs='+', default=(), metavar='TOPIC', help='image topics to process')
    add(
        '--depth',
        nargs='?',
        const='auto',
        default='',
        metavar='TOPIC',
        help='bags: estimate the size of people with the depth images of a topic; without TOPIC '
        'or with "auto", with those that are registered to each camera',
    )
    add(
        '--ground-frame',
        default='',
        metavar='FRAME',
        help='bags: estimate the size of people with the floor, which is the plane z = 0 of a TF '
        'frame with z up, such as base_footprint',
    )
    add(
        '--ground-height',
        type=float,
        default=0.0,
        metavar='METRES',
        help='height of the floor in the ground frame',
    )
    add('--stature', type=float, metavar='METRES', help='stature of all people, if it is known')
    add('--only-results', action='store_true', help='do not copy the recorded messages')
    add(
        '--csv',
        nargs='?',
        const='',
        metavar='FILE',
        help='also write a CSV table with one row per joint',
    )
    add('--parquet', nargs='?', const='', metavar='FILE', help='also write a Parquet table')
    add('--overwrite', action='store_true', help='replace existing results')


def run(args: argparse.Namespace) -> int:
    """Annotate recordings; continue interrupted ones."""
    require_package('rosbags', 'annotate', 'rosbags')
    from metrabs_ros.recordings import parallel
    from metrabs_ros.recordings.options import AnnotateOptions

    fields = [field.name for field in dataclasses.fields(AnnotateOptions)]
    options = AnnotateOptions(**{name: getattr(args, name) for name in fields})
    options = dataclasses.replace(options, topics=tuple(options.topics))
    if args.workers < 1:
        raise ValueError(f'--workers is {args.workers}; it must be at least 1')
    tasks, errors = parallel.plan_tasks(args.input, args.output, options)
    status = max(map(print_error, errors), default=0)
    if len(tasks) > 1 and not options.overwrite:
        tasks = _without_existing_results(tasks)
    if not tasks:
        return status
    if args.ray is not None:
        outcomes = _with_progress(parallel.run_on_ray(tasks, args.ray), len(tasks))
    elif args.workers > 1:
        outcomes = _with_progress(parallel.run_in_processes(tasks, args.workers), len(tasks))
    else:
        outcomes = (parallel.annotate_task(task, show_progress=True) for task in tasks)
    try:
        for outcome in outcomes:
            status |= _report_outcome(outcome)
    except KeyboardInterrupt:
        print('interrupted; run the same command again to continue', file=sys.stderr)
        return INTERRUPTED_STATUS
    return status


def _without_existing_results(tasks: list[Task]) -> list[Task]:
    """Return the recordings without results of an earlier run."""
    for task in tasks:
        if task.output.exists():
            output = shown(task.output)
            print(f'{output} already exists and is skipped; --overwrite replaces it')
    return [task for task in tasks if not task.output.exists()]


def _with_progress(outcomes: Iterator[Outcome], total: int) -> Iterator[Outcome]:
    """Show a progress bar over the recordings."""
    return iter(tqdm(outcomes, total=total, unit='recording'))


def _report_outcome(outcome: Outcome) -> int:
    """Print the summary or error of a recording and return the exit status."""
    if outcome.summary is None:
        return print_error(outcome.error_message)
    tqdm.write('\n'.join(outcome.summary.lines()))
    return 0 if outcome.summary.processed else 1
