"""Demo: a camera, the pose node and a viewer, as processes that communicate over DDS."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from types import FrameType
from typing import Any

from metrabs_ros.child_process import ChildProcess
from metrabs_ros.foreign_text import printable

POLL_PERIOD_S = 0.1
SIGNAL_STATUS_OFFSET = 128
"""Exit status of a process that a signal ended is this plus the number of the signal."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

FASTDDS_PROFILES_FILE = pathlib.Path(__file__).parent / 'node' / 'fastdds.xml'
"""Fast DDS profile with shared memory segments that are large enough for images."""
PROFILES_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
"""Environment variables for the profile, of Fast DDS 2 (Jazzy) and Fast DDS 3 (Kilted)."""

PROCESSES = {
    'camera': 'metrabs_ros.node.demo_camera',
    'pose': 'metrabs_ros.node.pose_node',
    'viewer': 'metrabs_ros.node.demo_viewer',
    'view': 'metrabs_ros.node.view_node',
}
VIDEO, PLOT = OUTPUTS = 'annotated.mp4', 'birds_eye.png'
"""Names of the output files.  Files of an earlier demo are replaced."""
MAX_PATH_CHARS = 300
"""Maximum length of a path in a message."""
REMAPPINGS = ('--ros-args', '-r', 'skeletons:=pose/skeletons')


class StopRequests:
    """Counter of the requests to stop: Ctrl-C, SIGTERM or SIGHUP."""

    def __init__(self) -> None:
        self._count = 0

    @property
    def is_requested(self) -> bool:
        """Whether a signal has arrived."""
        return self._count > 0

    def is_urgent(self) -> bool:
        """Return whether a second signal has arrived."""
        return self._count > 1

    def request(self, signum: int, frame: FrameType | None) -> None:
        """Count a signal; this is a signal handler."""
        self._count += 1


@contextlib.contextmanager
def catch_stop_signals() -> Iterator[StopRequests]:
    """
    Count stop signals instead of ending, so that all child processes can be terminated.

    Signals that are already ignored, for example under nohup, stay ignored.
    """
    stop = StopRequests()
    replaced: dict[signal.Signals, Any] = {}
    for number in STOP_SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            replaced[number] = signal.signal(number, stop.request)
    try:
        yield stop
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)


def run(
    source: pathlib.Path,
    output: pathlib.Path,
    camera_options: Sequence[str],
    rate_hz: float,
    with_view: bool = False,
) -> int:
    """
    Run the demo until the end of the camera's input.

    Parameters
    ----------
    source
        Input of the camera: video, image folder, image or video device.
    output
        Output folder of the viewer.
    camera_options
        Further arguments of the camera.
    rate_hz
        Frame rate of the annotated video.
    with_view
        Whether to start the browser view as well.

    Returns
    -------
    int
        The exit status: 0 if people were detected.

    Raises
    ------
    OSError
        If the output folder is not writable.
    ValueError
        If the output would replace the source or be written into it.
    """
    _check_output_apart(source, output)
    _make_writable(output)
    readers = 3 if with_view else 2
    commands = {
        'viewer': ['--output', str(output), '--rate', str(rate_hz), *REMAPPINGS],
        'pose': [],
        **({'view': []} if with_view else {}),
        'camera': [
            *('--input', str(source), '--readers', str(readers)),
            *(*camera_options, *REMAPPINGS),
        ],
    }
    started: dict[str, ChildProcess] = {}
    with catch_stop_signals() as stop:
        try:
            for name, arguments in commands.items():
                if not stop.is_requested:
                    started[name] = _start(name, *arguments)
            while not stop.is_requested and _all_run(started):
                time.sleep(POLL_PERIOD_S)
            if stop.is_requested:
                print('demo: stopping ...', flush=True)
            return _status(started, stop)
        finally:
            for process in started.values():
                process.end(lambda: True)


def _all_run(processes: dict[str, ChildProcess]) -> bool:
    return all(process.status is None for process in processes.values())


def _status(processes: dict[str, ChildProcess], stop: StopRequests) -> int:
    """End the processes, report those that failed, and return the exit status of the demo."""
    failed = False
    # The viewer ends last, because it prints a summary of the others' results.
    for name in ('camera', 'pose', 'view', 'viewer'):
        process = processes.get(name)
        if process is None:
            continue
        has_ended = process.status is not None
        status = process.end(stop.is_urgent)
        if name == 'viewer' and not has_ended and status in (0, 1):
            failed |= status != 0
        elif name == 'camera' and status == 1:
            failed = True  # The camera has printed the reason.
        elif status not in (0, -signal.SIGTERM) or (has_ended and name != 'camera'):
            print(f'demo: {process.status_text}', file=sys.stderr)
            failed = True
    return int(failed)


def _check_output_apart(source: pathlib.Path, output: pathlib.Path) -> None:
    """Raise a ValueError if the output would replace the input or be written into its folder."""
    input_name = printable(source, MAX_PATH_CHARS)
    if source.is_dir():
        folder = pathlib.Path(os.path.realpath(output))
        if any(_is_same(path, source) for path in (folder, *folder.parents)):
            raise ValueError(
                f'output {printable(output, MAX_PATH_CHARS)} is the input {input_name} or within '
                'it; give another --output'
            )
    for name in OUTPUTS:
        target = output / name
        if any(_is_same(path, target) for path in _files_of(source)):
            raise ValueError(
                f'the demo would replace {printable(target, MAX_PATH_CHARS)}, which is the input '
                f'{input_name} or an image of it; give another --output'
            )


def _files_of(source: pathlib.Path) -> list[pathlib.Path]:
    """Return the input files; the list is empty if the folder cannot be read."""
    if not source.is_dir():
        return [source]
    with contextlib.suppress(OSError):
        return list(source.iterdir())
    return []


def _is_same(path: pathlib.Path, other: pathlib.Path) -> bool:
    """Return whether two paths refer to the same file or folder."""
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def _make_writable(folder: pathlib.Path) -> None:
    """Create the output folder and check that its files can be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OSError(f'output {folder} is not a folder; give another --output') from error
    except OSError as error:
        raise OSError(f'output {folder} cannot be created: {error.strerror}') from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(f'output {folder} is not writable; give another --output')
    for name in OUTPUTS:
        file = folder / name
        if file.is_dir() and not file.is_symlink():
            raise OSError(f'output {printable(file, MAX_PATH_CHARS)} is a folder; move it away')


def view(options: Sequence[str], camera: str, ros_arguments: Sequence[str]) -> int:
    """
    Show the live topics in a browser until a signal arrives.

    Parameters
    ----------
    options
        Arguments of the view node.
    camera
        Namespace of a camera, which contains ``image_raw``.  If it is empty, the topic is
        ``image``.
    ros_arguments
        Further ROS arguments, for example remappings.

    Returns
    -------
    int
        The exit status.
    """
    base = camera.rstrip('/')
    remappings = {
        'image': f'{base}/image_raw',
        'image/compressed': f'{base}/image_raw/compressed',
        'camera_info': f'{base}/camera_info',
    }
    pairs = [f'{name}:={topic}' for name, topic in remappings.items()] if base else []
    remapping_arguments = [argument for pair in pairs for argument in ('-r', pair)]
    with catch_stop_signals() as stop:
        process = _start('view', *options, '--ros-args', *remapping_arguments, *ros_arguments)
        while not stop.is_requested and process.status is None:
            time.sleep(POLL_PERIOD_S)
        has_ended = process.status is not None
        status = process.end(stop.is_urgent)
    if has_ended and status < 0:
        print(f'metrabs_ros: {process.status_text}', file=sys.stderr)
    if has_ended:
        return SIGNAL_STATUS_OFFSET - status if status < 0 else status
    return 0 if status == -signal.SIGTERM else status


def _start(name: str, *arguments: str) -> ChildProcess:
    environ = {**dict.fromkeys(PROFILES_VARIABLES, str(FASTDDS_PROFILES_FILE)), **os.environ}
    command = [sys.executable, '-m', PROCESSES[name], *arguments]
    return ChildProcess(f'the {name} process', command, environ)
