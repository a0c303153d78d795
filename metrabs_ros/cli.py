"""The command line: metrabs_ros demo | view | annotate | report | fetch | build-engine."""

from __future__ import annotations

from metrabs_ros import startup_signals

if __name__ == '__main__':
    # Before the imports below, which take long enough to be interrupted.
    startup_signals.exit_on_signals(startup_signals.COMMAND_STATUSES)

import argparse
import dataclasses
import importlib.util
import logging
import os
import pathlib
import signal
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tqdm import tqdm

from metrabs_ros import demo, loading
from metrabs_ros.demo_video import FootageError, default_footage
from metrabs_ros.foreign_text import printable
from metrabs_ros.weights import store

if TYPE_CHECKING:
    from metrabs_ros.recordings.parallel import Outcome, Task

ERROR_CHARS, PATH_CHARS = 3000, 300
COMPLAINTS = (store.WeightsError, FootageError, ValueError, ImportError, OSError)
INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run a command; return the exit status."""
    logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)
    # No report with the bare format of a message when stdout was closed, as by `| head`.
    logging.raiseExceptions = False
    chosen = _parser().parse_args(arguments)
    try:
        startup_signals.restore_defaults()
        status: int = chosen.run(chosen)
    except COMPLAINTS as error:
        print(f'metrabs_ros: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return INTERRUPTED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='metrabs_ros', description='Absolute 3D human poses.')
    commands = parser.add_subparsers(required=True, metavar='COMMAND')

    fetch = commands.add_parser('fetch', help='fetch the weights of a model')
    fetch.add_argument('model', choices=store.MODELS)
    fetch.add_argument('--url', help='take a MeTRAbs release from here, for example from a mirror')
    fetch.set_defaults(run=_fetch)

    build = commands.add_parser(
        'build-engine',
        help="build a model's TensorRT engine for this GPU ahead of time",
    )
    build.add_argument('model', help='metrabs_s, metrabs_l or a folder with a checkpoint')
    build.add_argument('--precision', default='auto', help='auto, fp32, fp16 or bf16')
    build.add_argument('--device', default='auto', help='auto, cuda or cuda:N')
    build.set_defaults(run=_build_engine)

    play = commands.add_parser('demo', help='run a camera, the pose node and a viewer')
    play.add_argument('--input', help='video, folder, picture or /dev/video*; default: footage')
    play.add_argument('--calibration', help='a ROS calibration YAML of the camera')
    play.add_argument('--fov', type=float, default=55.0, help='degrees, without calibration')
    play.add_argument('--rate', type=float, default=0.0, help='images a second; 0: all, no drops')
    play.add_argument('--output', type=pathlib.Path, default=pathlib.Path('demo_output'))
    play.add_argument('--view', action='store_true', help='show it in a browser of this machine')
    play.set_defaults(run=_demo)

    view = commands.add_parser(
        'view', help='show in a browser what the pose node publishes, or results of annotate'
    )
    view.add_argument('results', nargs='?', type=pathlib.Path, help='default: what is published')
    view.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen on; 0.0.0.0 lets other machines see the camera',
    )
    view.add_argument('--web-port', type=int, default=9090, help='of the page')
    view.add_argument('--data-port', type=int, default=9876, help='of the data that it shows')
    view.add_argument('--memory', help='kept for browsers; default 256MiB, of results 2GiB')
    view.add_argument('--cameras', nargs='*', default=[], help='live, several, by namespaces')
    view.add_argument('--compressed', action='store_true', help='live, take image/compressed')
    view.add_argument(
        '--camera', default='', help='live, the namespace of a camera with image_raw below it'
    )
    view.add_argument('--ros-args', nargs=argparse.REMAINDER, default=[], help='live, remappings')
    view.set_defaults(run=_view)

    work = commands.add_parser(
        'annotate',
        help='find the people in recordings: bags of ROS 1 and 2, videos, folders of pictures',
    )
    work.add_argument(
        'input', nargs='+', type=pathlib.Path, help='recordings, or folders with bags in them'
    )
    work.add_argument(
        '-o', '--output', type=pathlib.Path, help='the folder of the results; of several, above it'
    )
    _add_what_is_wanted(work)
    work.add_argument('--workers', type=int, default=1, help='recordings to work on at once')
    work.add_argument(
        '--ray', metavar='ADDRESS', help='work on a Ray cluster, or with "local" on one made here'
    )
    work.set_defaults(run=_annotate)

    report = commands.add_parser(
        'report', help='write a page about the people in results of annotate, or in a recording'
    )
    report.add_argument('results', type=pathlib.Path, help="a bag with the node's skeletons")
    report.add_argument('-o', '--output', type=pathlib.Path, help='the file of the page')
    report.set_defaults(run=_report)
    return parser


def _add_what_is_wanted(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that have the names of the fields of `AnnotateOptions`."""
    add = parser.add_argument
    add('--model', default='blazepose', help='blazepose, metrabs_s, metrabs_l or a folder')
    add('--engine', default='auto', help='auto, torch, tensorrt or openvino')
    add('--precision', default='auto', help='auto, fp32, fp16 or bf16')
    add('--device', default='auto', help='auto, cpu, cuda or cuda:N')
    add('--detector', default='auto', help='auto, blazepose, onnx:FILE or ultralytics:NAME')
    add('--threads', type=int, default=0, help='of the CPU for the network; 0: one a core')
    add('--skeleton', default='', help='the convention of the joints; default: all joints')
    add('--num-aug', type=int, default=1, help='crops of each person to average over')
    add('--detector-threshold', type=float, help='the lowest score of a detection, from 0 to 1')
    add('--batch', type=int, default=0, help='frames a run of the network; 0: as suits it')
    add(
        '--follow',
        action='store_true',
        help='look for new people only now and then, as the node does; several times as fast',
    )
    add(
        '--smoothing',
        type=float,
        default=0.0,
        help='0, the default, leaves poses as they are found; to 1, the calmest',
    )
    add('--max-lost', type=float, default=1.0, help='seconds after which a new id is given')
    add(
        '--camera-info',
        type=pathlib.Path,
        metavar='FILE',
        help='a calibration for all cameras, by camera_calibration or ros2 topic echo',
    )
    add(
        '--fov',
        dest='fov_degrees',
        type=float,
        default=0.0,
        metavar='DEGREES',
        help='across the longer side, for cameras without calibration',
    )
    add('--topics', nargs='+', default=(), metavar='TOPIC', help='image topics to work on')
    add('--only-results', action='store_true', help='leave out what was recorded')
    add('--csv', nargs='?', const='', metavar='FILE', help='write a table with a row a joint, too')
    add('--parquet', nargs='?', const='', metavar='FILE', help='the same in Parquet')
    add('--overwrite', action='store_true', help='replace results that are there')


def _fetch(chosen: argparse.Namespace) -> int:
    print(f'the {chosen.model} weights are in {store.fetch(chosen.model, chosen.url)}')
    return 0


def _build_engine(chosen: argparse.Namespace) -> int:
    choice = loading.build_engine(chosen.model, chosen.precision, chosen.device)
    print(f'the engine for {chosen.model} is in the cache: {choice}')
    return 0


def _demo(chosen: argparse.Namespace) -> int:
    source = pathlib.Path(chosen.input) if chosen.input else default_footage()
    store.fetch(store.BLAZEPOSE)
    options = ['--fov', str(chosen.fov), '--rate', str(chosen.rate)]
    if chosen.calibration:
        options += ['--calibration', chosen.calibration]
    print(f'playing {source} ...', flush=True)
    if chosen.view:
        _need('rerun', 'view', 'rerun-sdk')
    return demo.run(source, chosen.output, options, chosen.rate or 10.0, chosen.view)


def _view(chosen: argparse.Namespace) -> int:
    _need('rerun', 'view', 'rerun-sdk')
    if chosen.results is None:
        options = ['--host', chosen.host]
        options += ['--web-port', str(chosen.web_port), '--data-port', str(chosen.data_port)]
        options += ['--compressed'] if chosen.compressed else []
        options += ['--memory', chosen.memory] if chosen.memory else []
        options += ['--cameras', *chosen.cameras] if chosen.cameras else []
        return demo.view(options, chosen.camera, chosen.ros_args)
    _need('rosbags', 'view of results', 'rosbags', 'mcap')
    from metrabs_ros.view.results import Results
    from metrabs_ros.view.scene import Scene
    from metrabs_ros.view.server import exposure_warning

    results = Results(chosen.results, print)
    try:
        scene = Scene(results.cameras)
        address = scene.serve(
            chosen.web_port, chosen.data_port, chosen.memory or '2GiB', chosen.host
        )
        if warning := exposure_warning(chosen.host):
            print(f'view: {warning}', file=sys.stderr, flush=True)
        print(f'view: open {address} in a browser; Ctrl-C ends it', flush=True)
        results.show_in(scene)
        signal.pause()
    finally:
        results.close()
    return 0


def _annotate(chosen: argparse.Namespace) -> int:
    _need('rosbags', 'annotate', 'rosbags', 'mcap')
    from metrabs_ros.recordings import parallel
    from metrabs_ros.recordings.options import AnnotateOptions

    fields = [field.name for field in dataclasses.fields(AnnotateOptions)]
    wanted = AnnotateOptions(**{name: getattr(chosen, name) for name in fields})
    wanted = dataclasses.replace(wanted, topics=tuple(wanted.topics))
    if chosen.workers < 1:
        raise ValueError(f'--workers is {chosen.workers}; it must be at least 1')
    tasks, errors = parallel.plan_tasks(chosen.input, chosen.output, wanted)
    status = max(map(_complain, errors), default=0)
    if len(tasks) > 1 and not wanted.overwrite:
        tasks = _not_done(tasks)
    if not tasks:
        return status
    if chosen.ray is not None:
        outcomes = _with_progress(parallel.run_on_ray(tasks, chosen.ray), len(tasks))
    elif chosen.workers > 1:
        outcomes = _with_progress(parallel.run_in_processes(tasks, chosen.workers), len(tasks))
    else:
        outcomes = (parallel.annotate_task(task, show_progress=True) for task in tasks)
    try:
        for outcome in outcomes:
            status |= _tell_of(outcome)
    except KeyboardInterrupt:
        print('interrupted; the same command goes on where this one stopped', file=sys.stderr)
        return INTERRUPTED
    return status


def _complain(complaint: str) -> int:
    """Print an error message; return the exit status."""
    tqdm.write(f'metrabs_ros: {printable(complaint, ERROR_CHARS)}', file=sys.stderr)
    return 1


def _not_done(tasks: list[Task]) -> list[Task]:
    """Leave out the recordings whose results an earlier run has written."""
    for task in tasks:
        if task.output.exists():
            output = printable(task.output, PATH_CHARS)
            print(f'{output} is there already, left alone; --overwrite replaces it')
    return [task for task in tasks if not task.output.exists()]


def _with_progress(outcomes: Iterator[Outcome], total: int) -> Iterator[Outcome]:
    """Show how many recordings are done, and how long the others may take."""
    return iter(tqdm(outcomes, total=total, unit='recording'))


def _tell_of(outcome: Outcome) -> int:
    """Say what came of a recording; return the exit status."""
    if outcome.summary is None:
        return _complain(outcome.error_message)
    tqdm.write('\n'.join(outcome.summary.lines()))
    return 0 if outcome.summary.worked_on else 1


def _report(chosen: argparse.Namespace) -> int:
    _need('rosbags', 'report', 'rosbags', 'mcap')
    _need('matplotlib', 'report', 'matplotlib')
    from metrabs_ros.report.page import write_report

    results: pathlib.Path = chosen.results
    is_folder = os.path.isdir(results)
    beside = results / 'report.html' if is_folder else results.with_suffix('.html')
    output: pathlib.Path = chosen.output or beside
    try:
        write_report(results, output, print)
    except (ValueError, OSError) as error:
        return _complain(str(error))
    print(f'the report is in {printable(output, PATH_CHARS)}')
    return 0


def _need(package: str, command: str, *names: str) -> None:
    """Say what to install if a package is missing."""
    if importlib.util.find_spec(package) is None:
        raise ImportError(f'{command} needs {" and ".join(names)}: pip install {" ".join(names)}')


if __name__ == '__main__':
    sys.exit(main())
