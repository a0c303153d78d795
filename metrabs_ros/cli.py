"""The command line: metrabs_ros demo | view | annotate | report | calibrate | fetch | ..."""

from __future__ import annotations

from metrabs_ros import startup_signals

if __name__ == '__main__':
    # The handlers must be in place before the imports below, which take seconds.
    startup_signals.exit_on_signals(startup_signals.COMMAND_STATUSES)

import argparse
import contextlib
import dataclasses
import importlib
import importlib.util
import logging
import os
import pathlib
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from metrabs_ros import demo, loading
from metrabs_ros.demo_video import FootageError, default_footage
from metrabs_ros.foreign_text import printable
from metrabs_ros.regular_file import SHARED, write_atomically
from metrabs_ros.weights import store

if TYPE_CHECKING:
    from metrabs_ros.recordings.parallel import Outcome, Task

MAX_ERROR_CHARS, MAX_PATH_CHARS = 3000, 300
"""Maximum lengths of error messages and of paths in messages."""
REPORTED_ERRORS = (store.WeightsError, FootageError, ValueError, ImportError, OSError)
"""Errors that are printed without a traceback."""
NETWORK_HELP = 'metrabs_s, metrabs_l, nlf_s, nlf_l or a checkpoint'
INTERRUPTED_STATUS = 130
"""Exit status after SIGINT, as in a shell."""


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line, run the command and return the exit status."""
    logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)
    # Without this, logging prints its own errors after stdout is closed, for example by `| head`.
    logging.raiseExceptions = False
    args = _parser().parse_args(arguments)
    try:
        # An import can swallow the KeyboardInterrupt that the default handler of SIGINT raises.
        # The command itself explains which packages are missing.
        with contextlib.suppress(ImportError):
            importlib.import_module(args.module)
        startup_signals.restore_defaults()
        status: int = args.run(args)
    except REPORTED_ERRORS as error:
        print(f'metrabs_ros: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return INTERRUPTED_STATUS
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='metrabs_ros', description='Absolute 3D human poses.')
    parser.set_defaults(module='metrabs_ros')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    fetch = commands.add_parser(
        'fetch', help='download the weights of a model that are not part of the package'
    )
    fetch.add_argument('model', choices=store.MODELS)
    fetch.add_argument(
        '--url', help='address of a mirror; for blazepose_heavy also the path of a local file'
    )
    fetch.set_defaults(run=_fetch)

    _add_build_engine(commands)
    _add_export(commands)

    play = commands.add_parser('demo', help='start a camera node, the pose node and a viewer')
    play.add_argument(
        '--input', help='video, image folder, image or /dev/video*; default: sample video'
    )
    play.add_argument('--calibration', help='ROS calibration YAML of the camera')
    play.add_argument(
        '--fov', type=float, default=55.0, help='field of view in degrees, without calibration'
    )
    play.add_argument(
        '--rate', type=float, default=0.0, help='images per second; 0: all images without drops'
    )
    play.add_argument(
        '--output', type=pathlib.Path, default=pathlib.Path('demo_output'), help='output folder'
    )
    play.add_argument(
        '--view', action='store_true', help='also show the result in a browser on this machine'
    )
    play.set_defaults(run=_demo)

    view = commands.add_parser(
        'view', help='show the topics of the pose node, or results of annotate, in a browser'
    )
    view.add_argument(
        'results', nargs='?', type=pathlib.Path, help='results of annotate; default: live topics'
    )
    view.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen on; 0.0.0.0 gives other machines access to the camera',
    )
    view.add_argument('--web-port', type=int, default=9090, help='port of the web page')
    view.add_argument('--data-port', type=int, default=9876, help='port of the data stream')
    view.add_argument(
        '--memory',
        help='data buffered for new browsers; default: 256MiB, with results 2GiB',
    )
    view.add_argument(
        '--cameras', nargs='*', default=[], help='live: namespaces of several cameras'
    )
    view.add_argument(
        '--compressed', action='store_true', help='live: subscribe to image/compressed'
    )
    view.add_argument(
        '--fused', action='store_true', help='live: show the people of the fusion node'
    )
    view.add_argument(
        '--camera', default='', help='live: namespace of a camera, which contains image_raw'
    )
    view.add_argument(
        '--ros-args', nargs=argparse.REMAINDER, default=[], help='live: ROS arguments, remappings'
    )
    view.set_defaults(run=_view)

    annotate = commands.add_parser(
        'annotate',
        help='detect people in recordings: ROS 1 and ROS 2 bags, videos, image folders',
    )
    annotate.add_argument(
        'input', nargs='+', type=pathlib.Path, help='recordings, or folders that contain bags'
    )
    annotate.add_argument(
        '-o',
        '--output',
        type=pathlib.Path,
        help='folder of the results; for several recordings, the folder of these folders',
    )
    _add_annotate_options(annotate)
    annotate.add_argument(
        '--workers', type=int, default=1, help='number of recordings processed in parallel'
    )
    annotate.add_argument(
        '--ray',
        metavar='ADDRESS',
        help='process on a Ray cluster; "local" starts one on this machine',
    )
    annotate.set_defaults(run=_annotate, module='metrabs_ros.recordings.parallel')

    report = commands.add_parser(
        'report', help='write an HTML report on the people in results of annotate or in a bag'
    )
    report.add_argument(
        'results', type=pathlib.Path, help='bag with the skeletons of the pose node'
    )
    report.add_argument('-o', '--output', type=pathlib.Path, help='HTML file of the report')
    report.set_defaults(run=_report, module='metrabs_ros.report.page')
    _add_calibrate(commands)
    _add_skeleton_commands(commands)
    return parser


def _add_build_engine(commands: Any) -> None:
    """Add the command build-engine."""
    build = commands.add_parser(
        'build-engine', help='build the TensorRT engine of a model in advance'
    )
    build.add_argument('model', help=NETWORK_HELP)
    build.add_argument(
        '--engine', default='auto', help='auto, tensorrt or tensorrt_rtx; default: auto'
    )
    build.add_argument('--precision', default='auto', help='auto, fp32, fp16 or bf16')
    build.add_argument('--device', default='auto', help='auto, cuda or cuda:N')
    build.add_argument(
        '--target',
        default='',
        metavar='TARGETS',
        help='compile with TensorRT for RTX for GPUs of other machines, for example '
        'sm86,sm89,sm120; needs no GPU',
    )
    build.set_defaults(run=_build_engine)


def _add_export(commands: Any) -> None:
    """Add the command export."""
    export = commands.add_parser(
        'export', help='export a network to ONNX, for trtexec, Triton or Isaac ROS'
    )
    export.add_argument('model', help=NETWORK_HELP)
    export.add_argument(
        '--onnx', type=pathlib.Path, required=True, metavar='FILE', help='the file to write'
    )
    export.add_argument(
        '--precision', default='fp32', help='precision of the backbone: fp32 or fp16'
    )
    export.add_argument(
        '--skeleton',
        default='',
        help='NLF: the skeleton, or .npy file of canonical points, that the network predicts; '
        'default: smpl_24',
    )
    export.add_argument('--overwrite', action='store_true', help='replace an existing file')
    export.set_defaults(run=_export)


def _add_skeleton_commands(commands: Any) -> None:
    """Add the commands convert-skeleton, fit-joints and fit-skeletons."""
    convert = commands.add_parser(
        'convert-skeleton', help='convert people in results of annotate to another skeleton'
    )
    convert.add_argument(
        'source',
        type=pathlib.Path,
        help='bag with skeletons, or table of joints in CSV or Parquet',
    )
    convert.add_argument(
        '--skeleton', required=True, help='name of the new skeleton, such as smpl_24'
    )
    convert.add_argument(
        '--skeleton-file',
        type=pathlib.Path,
        metavar='FILE',
        help='skeleton definitions in addition to the built-in ones',
    )
    convert.set_defaults(run=_convert_skeleton)

    joints = commands.add_parser(
        'fit-joints', help='define custom joints from examples of their positions'
    )
    joints.add_argument(
        'examples',
        type=pathlib.Path,
        help='.npz with poses3d, joint_names, custom3d and custom_names; see docs/skeletons.md',
    )
    joints.add_argument('--name', required=True, help='name of the new skeleton')
    joints.add_argument(
        '--source',
        default='blazepose_33',
        help="skeleton of poses3d; '' for all joints of a network; default: blazepose_33",
    )
    joints.set_defaults(run=_fit_joints)

    fit = commands.add_parser(
        'fit-skeletons', help='fit an affine-combining autoencoder to poses of many joints'
    )
    fit.add_argument(
        'poses', type=pathlib.Path, help='.npz with poses3d [N, J, 3] in mm and joint_names [J]'
    )
    fit.add_argument(
        '--latents',
        type=int,
        default=0,
        help='number of latent points; default: half of the joints, at most 48',
    )
    fit.set_defaults(run=_fit_skeletons)
    for command, output in (
        (convert, 'folder of the new bag, or table of the same kind as the source'),
        (joints, 'skeleton definition, JSON'),
        (fit, 'matrices, .npz; a picture is next to it'),
    ):
        command.add_argument('-o', '--output', type=pathlib.Path, required=True, help=output)
        command.add_argument('--overwrite', action='store_true', help='replace existing files')


def _add_calibrate(commands: Any) -> None:
    """Add the command calibrate."""
    calibrate = commands.add_parser(
        'calibrate', help='estimate the poses of cameras from the people that they see'
    )
    calibrate.add_argument(
        'results',
        nargs='+',
        type=pathlib.Path,
        help='results of annotate, or bags with the skeletons of the pose node',
    )
    calibrate.add_argument(
        '-o',
        '--output',
        type=pathlib.Path,
        default=pathlib.Path('extrinsics'),
        help='folder for extrinsics.yaml, extrinsics.launch.py and extrinsics.png',
    )
    calibrate.add_argument('--frame', default='map', help='name of the world frame; default: map')
    calibrate.add_argument(
        '--refine',
        metavar='FILE',
        help='improve the poses of an extrinsics.yaml; "tf": those of /tf_static in the bags',
    )
    calibrate.add_argument(
        '--rotation-deviation',
        type=float,
        default=1.0,
        metavar='DEGREES',
        help='with --refine: standard deviation of the given rotations; default: 1',
    )
    calibrate.add_argument(
        '--position-deviation',
        type=float,
        default=0.05,
        metavar='METRES',
        help='with --refine: standard deviation of the given positions; default: 0.05',
    )
    calibrate.add_argument('--overwrite', action='store_true', help='replace existing files')
    calibrate.set_defaults(run=_calibrate, module='metrabs_ros.report.calibration_files')


def _add_annotate_options(parser: argparse.ArgumentParser) -> None:
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


def _fetch(args: argparse.Namespace) -> int:
    if args.model in store.BUNDLED:
        print(f'the {args.model} weights are part of the package')
    else:
        print(f'the {args.model} weights are in {store.fetch(args.model, args.url)}')
    return 0


def _build_engine(args: argparse.Namespace) -> int:
    if not args.target:
        choice = loading.build_engine(args.model, args.engine, args.precision, args.device)
        print(f'the engine for {args.model} is in the cache: {choice}')
        return 0
    if args.engine not in ('auto', 'tensorrt_rtx') or args.device != 'auto':
        raise ValueError(
            '--target compiles with TensorRT for RTX, without a GPU; remove --engine and --device'
        )
    targets = loading.build_plans(args.model, args.precision, args.target)
    print(f'the engines for {args.model} are in the cache: tensorrt_rtx for {", ".join(targets)}')
    return 0


def _export(args: argparse.Namespace) -> int:
    file: pathlib.Path = args.onnx
    name = printable(file, MAX_PATH_CHARS)
    if os.path.lexists(file) and not args.overwrite:
        raise ValueError(f'{name} already exists; --overwrite replaces it')
    if not file.parent.is_dir():
        raise ValueError(f'{name} cannot be written: its folder does not exist')
    if file.is_dir() and not file.is_symlink():
        raise ValueError(f'{name} is a folder; name the file to write')
    content = loading.export_onnx(args.model, args.precision, args.skeleton)
    write_atomically(file, content, SHARED)
    print(f'the network of {args.model} is in {name}, {len(content) / 1e6:.0f} MB')
    return 0


def _demo(args: argparse.Namespace) -> int:
    source = pathlib.Path(args.input) if args.input else default_footage()
    _check_source(source)
    options = ['--fov', str(args.fov), '--rate', str(args.rate)]
    if args.calibration:
        options += ['--calibration', args.calibration]
    print(f'playing {source} ...', flush=True)
    if args.view:
        _require_package('rerun', 'view', 'rerun-sdk')
    return demo.run(source, args.output, options, args.rate or 10.0, args.view)


def _check_source(source: pathlib.Path) -> None:
    """Raise an UnusableSource if the input of the demo cannot be read."""
    from metrabs_ros.recordings.image_files import Source

    # A camera can be opened only once, by the camera process.
    if not source.is_char_device():
        Source(str(source))


def _view(args: argparse.Namespace) -> int:
    _require_package('rerun', 'view', 'rerun-sdk')
    if args.results is None:
        options = ['--host', args.host]
        options += ['--web-port', str(args.web_port), '--data-port', str(args.data_port)]
        options += ['--compressed'] if args.compressed else []
        options += ['--fused'] if args.fused else []
        options += ['--memory', args.memory] if args.memory else []
        options += ['--cameras', *args.cameras] if args.cameras else []
        return demo.view(options, args.camera, args.ros_args)
    _require_package('rosbags', 'view of results', 'rosbags')
    from metrabs_ros.view.results import Results
    from metrabs_ros.view.scene import Scene
    from metrabs_ros.view.server import exposure_warning

    results = Results(args.results, print)
    try:
        scene = Scene(results.cameras, without_images=results.fused)
        address = scene.serve(args.web_port, args.data_port, args.memory or '2GiB', args.host)
        if warning := exposure_warning(args.host):
            print(f'view: {warning}', file=sys.stderr, flush=True)
        print(f'view: open {address} in a browser; Ctrl-C ends it', flush=True)
        results.show_in(scene)
        signal.pause()
    finally:
        results.close()
    return 0


def _annotate(args: argparse.Namespace) -> int:
    _require_package('rosbags', 'annotate', 'rosbags')
    from metrabs_ros.recordings import parallel
    from metrabs_ros.recordings.options import AnnotateOptions

    fields = [field.name for field in dataclasses.fields(AnnotateOptions)]
    options = AnnotateOptions(**{name: getattr(args, name) for name in fields})
    options = dataclasses.replace(options, topics=tuple(options.topics))
    if args.workers < 1:
        raise ValueError(f'--workers is {args.workers}; it must be at least 1')
    tasks, errors = parallel.plan_tasks(args.input, args.output, options)
    status = max(map(_print_error, errors), default=0)
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


def _print_error(message: str) -> int:
    """Print an error message and return the exit status."""
    tqdm.write(f'metrabs_ros: {printable(message, MAX_ERROR_CHARS)}', file=sys.stderr)
    return 1


def _without_existing_results(tasks: list[Task]) -> list[Task]:
    """Return the recordings without results of an earlier run."""
    for task in tasks:
        if task.output.exists():
            output = printable(task.output, MAX_PATH_CHARS)
            print(f'{output} already exists and is skipped; --overwrite replaces it')
    return [task for task in tasks if not task.output.exists()]


def _with_progress(outcomes: Iterator[Outcome], total: int) -> Iterator[Outcome]:
    """Show a progress bar over the recordings."""
    return iter(tqdm(outcomes, total=total, unit='recording'))


def _report_outcome(outcome: Outcome) -> int:
    """Print the summary or error of a recording and return the exit status."""
    if outcome.summary is None:
        return _print_error(outcome.error_message)
    tqdm.write('\n'.join(outcome.summary.lines()))
    return 0 if outcome.summary.processed else 1


def _report(args: argparse.Namespace) -> int:
    _require_package('rosbags', 'report', 'rosbags')
    _require_package('matplotlib', 'report', 'matplotlib')
    from metrabs_ros.report.page import write_report

    results: pathlib.Path = args.results
    is_folder = os.path.isdir(results)
    default = results / 'report.html' if is_folder else results.with_suffix('.html')
    output: pathlib.Path = args.output or default
    try:
        write_report(results, output, print)
    except (ValueError, OSError) as error:
        return _print_error(str(error))
    print(f'the report is in {printable(output, MAX_PATH_CHARS)}')
    return 0


def _calibrate(args: argparse.Namespace) -> int:
    _require_package('rosbags', 'calibrate', 'rosbags')
    _require_package('matplotlib', 'calibrate', 'matplotlib')
    from metrabs_ros.report.calibration_files import CalibrationOptions, calibrate

    options = CalibrationOptions(
        args.frame,
        args.refine or '',
        args.rotation_deviation,
        1000 * args.position_deviation,
        args.overwrite,
    )
    try:
        calibrate(args.results, args.output, options, print)
    except (ValueError, OSError) as error:
        return _print_error(str(error))
    return 0


def _convert_skeleton(args: argparse.Namespace) -> int:
    _require_package('rosbags', 'convert-skeleton', 'rosbags')
    from metrabs_ros.recordings.skeleton_conversion import convert_skeletons
    from metrabs_ros.recordings.skeleton_converter import SkeletonConverter
    from metrabs_ros.skeletons.definition_file import read_definitions

    definitions = [] if args.skeleton_file is None else read_definitions(args.skeleton_file)
    converter = SkeletonConverter(args.skeleton, definitions)

    def warn(message: str) -> None:
        _print_error(message)

    try:
        summary = convert_skeletons(args.source, args.output, converter, args.overwrite, warn)
    except (ValueError, OSError) as error:
        return _print_error(str(error))
    for reason, count in summary.skipped.items():
        _print_error(f'{count} {reason}')
    if summary.approximate:
        _print_error(
            f'{summary.approximate} people have approximate image points: the recorded ones are '
            'not projections of the positions'
        )
    output = printable(args.output, MAX_PATH_CHARS)
    print(f'{summary.people} people as {args.skeleton} are in {output}')
    return 0


def _fit_joints(args: argparse.Namespace) -> int:
    from metrabs_ros.skeletons.custom_joints import fit_custom_joints, read_examples
    from metrabs_ros.skeletons.definition_file import write_definitions

    _check_new(args.output, args.overwrite)
    result = fit_custom_joints(read_examples(args.examples), args.name, args.source)
    definition = result.definition
    for name, error_mm, weights in zip(
        definition.skeleton.joint_names, result.errors_mm, definition.weights
    ):
        terms = ' + '.join(
            f'{weight:.2f} {source}'
            for source, weight in zip(definition.source_joints, weights)
            if weight
        )
        print(printable(f'{name}: {error_mm:.1f} mm, {terms}', MAX_ERROR_CHARS))
    for warning in result.warnings:
        print(f'warning: {warning}', file=sys.stderr)
    write_definitions(args.output, [definition])
    print(f'the definition is in {printable(args.output, MAX_PATH_CHARS)}')
    return 0


def _fit_skeletons(args: argparse.Namespace) -> int:
    _require_package('torch', 'fit-skeletons', 'torch')
    _require_package('matplotlib', 'fit-skeletons', 'matplotlib')
    from metrabs_ros.report.skeleton_picture import draw_autoencoder
    from metrabs_ros.skeletons import affine_autoencoder
    from metrabs_ros.skeletons.affine_regression import most_common_pose
    from metrabs_ros.skeletons.pose_samples import read_samples

    if args.output.suffix != '.npz':
        raise ValueError(
            f'--output is {printable(args.output, MAX_PATH_CHARS)}; its name must end in .npz'
        )
    picture: pathlib.Path = args.output.with_suffix('.png')
    for file in (args.output, picture):
        _check_new(file, args.overwrite)
    samples = read_samples(args.poses)
    with tqdm(total=affine_autoencoder.STEP_COUNT, unit='step', desc='fitting') as progress:

        def advance(steps: int) -> None:
            progress.update(steps)

        fitted = affine_autoencoder.fit_autoencoder(samples, args.latents, advance)
    names, errors_mm = samples.joint_names, fitted.errors_mm
    # The largest errors last, where they are seen; unknown ones first.
    for i in np.argsort(np.where(np.isnan(errors_mm), -1, errors_mm)):
        print(f'{printable(names[i])}: {errors_mm[i]:.1f} mm')
    print(f'mean error in poses that were left out: {np.nanmean(errors_mm):.1f} mm')
    fitted.write(args.output)
    draw_autoencoder(fitted, most_common_pose(samples.poses_mm), picture)
    print(f'the autoencoder is in {printable(args.output, MAX_PATH_CHARS)}')
    print(f'check the picture {printable(picture, MAX_PATH_CHARS)}')
    return 0


def _check_new(file: pathlib.Path, overwrite: bool) -> None:
    """Raise a ValueError if an output file exists or cannot be created."""
    if os.path.lexists(file) and not overwrite:
        raise ValueError(
            f'{printable(file, MAX_PATH_CHARS)} already exists; --overwrite replaces it'
        )
    if os.path.isdir(file) or not os.path.isdir(file.absolute().parent):
        raise ValueError(
            f'{printable(file, MAX_PATH_CHARS)} is a folder, or its folder does not exist; give '
            'the name of a file'
        )


def _require_package(package: str, command: str, name: str) -> None:
    """Raise an ImportError with the name to install if a package is missing."""
    if importlib.util.find_spec(package) is None:
        raise ImportError(f'{command} needs {name}: pip install {name}')


if __name__ == '__main__':
    sys.exit(main())
