"""Files that a reader may hang on or run out of memory with, and a process to read them in."""

from __future__ import annotations

import os
import pathlib
import resource
import signal
import socket
from collections.abc import Callable

import torch


def put_fifo(path: pathlib.Path) -> None:
    os.mkfifo(path)


def put_directory(path: pathlib.Path) -> None:
    path.mkdir()


def put_socket(path: pathlib.Path) -> None:
    # Bound by a relative name, as those of sockets are limited to 108 bytes.
    here = pathlib.Path.cwd()
    os.chdir(path.parent)
    try:
        socket.socket(socket.AF_UNIX).bind(path.name)
    finally:
        os.chdir(here)


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


def in_a_child(
    function: Callable[[], object], room_bytes: int = 1 << 30, limit_s: int = 20
) -> str:
    """
    Call a function in a forked process of limited memory and time.

    Returns
    -------
    ``returned``, the type and message of the exception, or ``killed by signal N``.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        try:
            # The threads of the parent are not in the child.
            torch.set_num_threads(1)
            in_use = int(pathlib.Path('/proc/self/statm').read_text().split()[0])
            room = in_use * resource.getpagesize() + room_bytes
            resource.setrlimit(resource.RLIMIT_AS, (room, room))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(limit_s)
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
