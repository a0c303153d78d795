"""The demo: a camera, the pose node and a viewer, three processes that talk over DDS."""

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
SIGNALLED = 128
"""Shells add the number of a signal to this for the exit status."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

LARGE_IMAGES = pathlib.Path(__file__).parent / 'node' / 'fastdds.xml'
# Its name up to version 2 of Fast DDS (Jazzy) and since version 3 (Kilted).
PROFILES_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')

PROCESSES = {
    'camera': 'metrabs_ros.node.demo_camera',
    'pose': 'metrabs_ros.node.pose_node',
    'viewer': 'metrabs_ros.node.demo_viewer',
    'view': 'metrabs_ros.node.view_node',
}
VIDEO, PLOT = OUTPUTS = 'annotated.mp4', 'birds_eye.png'
"""The files in the output folder; an earlier demo's are replaced."""
PATH_CHARS = 300
REMAPPINGS = ('--ros-args', '-r', 'skeletons:=pose/skeletons')


class Stop:
    """The requests to end, by Ctrl-C, SIGTERM or SIGHUP, that have come so far."""

    def __init__(self) -> None:
        self._count = 0

    @property
    def is_requested(self) -> bool:
        """Whether there was one."""
        return self._count > 0

    def is_urgent(self) -> bool:
        """Tell whether there was another one since."""
        return self._count > 1

    def request(self, signum: int, frame: FrameType | None) -> None:
        """Take note of a signal."""
        self._count += 1


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[Stop]:
    """
    Note signals instead of ending, so that each process that was started is ended, too.

    Signals that are ignored, for example after nohup, are left so.
    """
    stop = Stop()
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
    Run the demo until the camera has played everything.

    Parameters
    ----------
    source
        What the camera plays.
    output
        The folder for what the viewer writes.
    camera_options
        Further arguments of the camera.
    rate_hz
        The frame rate of the annotated video.
    with_view
        Whether to show it in a browser, too.

    Returns
    -------
    The exit status: 0 if people were detected.

    Raises
    ------
    OSError
        If nothing can be written to the output folder.
    ValueError
        If the output would replace the source or be written into it.
    """
    _check_apart(source, output)
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
    with stopped_by_signals() as stop:
        try:
            for name, arguments in commands.items():
                if not stop.is_requested:
                    started[name] = _start(name, *arguments)
            while not stop.is_requested and _all_run(started):
                time.sleep(POLL_PERIOD_S)
            if stop.is_requested:
                print('demo: ending ...', flush=True)
            return _status(started, stop)
        finally:
            for process in started.values():
                process.end(lambda: True)


def _all_run(processes: dict[str, ChildProcess]) -> bool:
    return all(process.status is None for process in processes.values())


def _status(processes: dict[str, ChildProcess], stop: Stop) -> int:
    """End the processes, report those that failed, and return the exit status of the demo."""
    failed = False
    for name in ('camera', 'pose', 'view', 'viewer'):  # the viewer sums up what the others did
        process = processes.get(name)
        if process is None:
            continue
        ended_by_itself = process.status is not None
        status = process.end(stop.is_urgent)
        if name == 'viewer' and not ended_by_itself and status in (0, 1):
            failed |= status != 0
        elif name == 'camera' and status == 1:
            failed = True  # it has said why
        elif status not in (0, -signal.SIGTERM) or (ended_by_itself and name != 'camera'):
            print(f'demo: {process.ending}', file=sys.stderr)
            failed = True
    return int(failed)


def _check_apart(source: pathlib.Path, output: pathlib.Path) -> None:
    """Raise a ValueError if the demo would replace what it plays, or write into that folder."""
    shown = printable(source, PATH_CHARS)
    if source.is_dir():
        folder = pathlib.Path(os.path.realpath(output))
        if any(_is_same(path, source) for path in (folder, *folder.parents)):
            raise ValueError(
                f'output {printable(output, PATH_CHARS)} is the input {shown} or within it; '
                'give another --output'
            )
    for name in OUTPUTS:
        target = output / name
        if any(_is_same(path, target) for path in _files_of(source)):
            raise ValueError(
                f'the demo would replace {printable(target, PATH_CHARS)}, which is the input '
                f'{shown} or a picture of it; give another --output'
            )


def _files_of(source: pathlib.Path) -> list[pathlib.Path]:
    """Return the files that are played; of a folder that cannot be read, none."""
    if not source.is_dir():
        return [source]
    with contextlib.suppress(OSError):
        return list(source.iterdir())
    return []


def _is_same(path: pathlib.Path, other: pathlib.Path) -> bool:
    """Tell whether two paths lead to the same file or folder."""
    try:
        return os.path.samefile(path, other)
    except OSError:
        return False


def _make_writable(folder: pathlib.Path) -> None:
    """Make the output folder, before anything is started."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise OSError(f'output {folder} is not a folder') from error
    except OSError as error:
        raise OSError(f'output {folder} cannot be made: {error.strerror}') from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OSError(f'output {folder} cannot be written to')
    for name in OUTPUTS:
        file = folder / name
        if file.is_dir() and not file.is_symlink():
            raise OSError(f'output {printable(file, PATH_CHARS)} is a folder; move it away')


def view(options: Sequence[str], camera: str, ros_arguments: Sequence[str]) -> int:
    """
    Show in a browser what is published, until interrupted; return the exit status.

    Parameters
    ----------
    options
        Arguments of the view node.
    camera
        The namespace of a camera with ``image_raw`` below it; empty for ``image``.
    ros_arguments
        Further remappings.
    """
    base = camera.rstrip('/')
    remappings = {
        'image': f'{base}/image_raw',
        'image/compressed': f'{base}/image_raw/compressed',
        'camera_info': f'{base}/camera_info',
    }
    pairs = [f'{name}:={topic}' for name, topic in remappings.items()] if base else []
    named = [argument for pair in pairs for argument in ('-r', pair)]
    with stopped_by_signals() as stop:
        process = _start('view', *options, '--ros-args', *named, *ros_arguments)
        while not stop.is_requested and process.status is None:
            time.sleep(POLL_PERIOD_S)
        ended_by_itself = process.status is not None
        status = process.end(stop.is_urgent)
    if ended_by_itself and status < 0:
        print(f'metrabs_ros: {process.ending}', file=sys.stderr)
    if ended_by_itself:
        return SIGNALLED - status if status < 0 else status
    return 0 if status == -signal.SIGTERM else status


def _start(name: str, *arguments: str) -> ChildProcess:
    environ = {**dict.fromkeys(PROFILES_VARIABLES, str(LARGE_IMAGES)), **os.environ}
    command = [sys.executable, '-m', PROCESSES[name], *arguments]
    return ChildProcess(f'the {name} process', command, environ)
