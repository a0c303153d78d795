"""The demo: a camera, the pose node and a viewer, three processes that talk over DDS."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

END_PATIENCE_S = 10.0
POLL_PERIOD_S = 0.1

LARGE_IMAGES = pathlib.Path(__file__).parent / 'node' / 'fastdds.xml'
# Its name before and since version 3 of Fast DDS, Jazzy's and Kilted's.
PROFILES_VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')

PROCESSES = {
    'camera': 'metrabs_ros.node.demo_camera',
    'pose': 'metrabs_ros.node.pose_node',
    'viewer': 'metrabs_ros.node.demo_viewer',
    'view': 'metrabs_ros.node.view_node',
}
REMAPPINGS = ('--ros-args', '-r', 'skeletons:=pose/skeletons')


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
    The exit status: 0 if anybody was seen.
    """
    signal.signal(signal.SIGTERM, _end_as_by_keyboard)
    viewer = _start('viewer', '--output', str(output), '--rate', str(rate_hz), *REMAPPINGS)
    pose = _start('pose')
    shown = [_start('view')] if with_view else []
    readers = str(2 + len(shown))
    camera = _start(
        'camera', '--input', str(source), '--readers', readers, *camera_options, *REMAPPINGS
    )
    try:
        while camera.poll() is None:
            if pose.poll() is not None or viewer.poll() is not None:
                break
            time.sleep(POLL_PERIOD_S)
    except KeyboardInterrupt:
        print('demo: ending ...', flush=True)
    finally:
        # The viewer last: it sums up what the others did.
        failed = [_end(process) for process in (camera, pose, *shown)]
        status = _end(viewer)
    return status or max(failed)


def _end_as_by_keyboard(signum: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def view(options: Sequence[str], camera: str, ros_arguments: Sequence[str]) -> int:
    """
    Show in a browser what is published, until interrupted; return the exit status.

    Parameters
    ----------
    options
        Of the node that does so.
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
    signal.signal(signal.SIGTERM, _end_as_by_keyboard)
    process = _start('view', *options, '--ros-args', *named, *ros_arguments)
    with contextlib.suppress(KeyboardInterrupt):
        return process.wait()
    return _end(process)


def _start(name: str, *arguments: str) -> subprocess.Popen[bytes]:
    # In sessions of their own, so that Ctrl-C reaches them in the right order.
    return subprocess.Popen(
        [sys.executable, '-m', PROCESSES[name], *arguments],
        env={**dict.fromkeys(PROFILES_VARIABLES, str(LARGE_IMAGES)), **os.environ},
        start_new_session=True,
    )


def _end(process: subprocess.Popen[bytes]) -> int:
    """Ask a process to end, then see to it; return 0 if it ended well."""
    if process.poll() is None:
        # Not SIGINT, at which a process that is still importing would print a traceback.
        process.terminate()
        try:
            process.wait(END_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    status = process.returncode
    if status in (0, -signal.SIGTERM):
        return 0
    if status < 0:
        print(f'demo: {process.args!r} ended by {signal.Signals(-status).name}', file=sys.stderr)
    return 1
