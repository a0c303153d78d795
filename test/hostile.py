"""Files that can block a reader or exhaust its memory, and a child process to read them in."""

from __future__ import annotations

import contextlib
import os
import pathlib
import resource
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest
import torch


def put_fifo(path: pathlib.Path) -> None:
    os.mkfifo(path)


def put_directory(path: pathlib.Path) -> None:
    path.mkdir()


def put_socket(path: pathlib.Path) -> None:
    # A relative name is used because socket addresses are limited to 108 bytes.
    working_directory = pathlib.Path.cwd()
    os.chdir(path.parent)
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(working_directory)


def put_link_to_itself(path: pathlib.Path) -> None:
    path.symlink_to(path)


def put_dangling_link(path: pathlib.Path) -> None:
    path.symlink_to('/nonexistent/file')


def put_link_to_zeros(path: pathlib.Path) -> None:
    path.symlink_to('/dev/zero')


def put_link_to_terminal(path: pathlib.Path) -> None:
    path.symlink_to('/dev/tty')


def put_sparse_file(path: pathlib.Path) -> None:
    with path.open('wb') as file:
        file.truncate(10 << 30)


NOT_FILES = (
    *(put_fifo, put_directory, put_socket, put_link_to_itself, put_dangling_link),
    *(put_link_to_zeros, put_link_to_terminal),
)


def run_in_child(
    function: Callable[[], object], memory_bytes: int = 1 << 30, timeout_s: int = 60
) -> str:
    """
    Call a function in a forked process with limits on memory and time.

    Parameters
    ----------
    function
        The function.
    memory_bytes
        Maximum additional memory of the process.
    timeout_s
        Maximum time.

    Returns
    -------
    str
        ``returned``, the type and message of the exception, or ``killed by signal N``.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            # The threads of the parent do not exist in the child.
            torch.set_num_threads(1)
            in_use = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
            limit_bytes = in_use * resource.getpagesize() + memory_bytes
            resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(timeout_s)
            function()
            message = 'returned'
        except BaseException as error:
            message = f'{type(error).__name__}: {error}'
        os.write(writing, message.encode('utf-8', 'backslashreplace')[:60_000])
        os._exit(0)
    os.close(writing)
    with open(reading, 'rb') as pipe:
        message = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return f'killed by signal {status}' if os.WIFSIGNALED(status) else message


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, size_bytes: int) -> Iterator[pathlib.Path]:
    """Mount a disk of the given size on a new folder; skip the test without the permission."""
    folder.mkdir()
    size = f'size={max(size_bytes >> 10, 4)}k'
    command = ['mount', '-t', 'tmpfs', '-o', f'{size},mode=0700', 'tmpfs', str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip('mounting needs root')
    try:
        yield folder
    finally:
        subprocess.run(['umount', str(folder)], check=True)


def make_read_only(disk: pathlib.Path) -> None:
    """Remount a disk read-only."""
    subprocess.run(['mount', '-o', 'remount,ro', str(disk)], check=True)


def checkpoint_error(
    read: Callable[[], object], name: str, run: Callable[..., str] = run_in_child
) -> str:
    """Return the error message of reading a checkpoint, which must be a line with a name."""
    message = run(read)
    assert message.startswith('WeightsError: '), message
    assert name in message
    assert '\n' not in message
    assert 'MemoryError' not in message, 'too much memory was allocated'
    assert len(message) < 1500
    return message
