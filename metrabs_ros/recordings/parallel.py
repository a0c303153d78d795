"""Several recordings at once: in processes of this machine, or on others with Ray."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import contextlib
import functools
import logging
import multiprocessing
import multiprocessing.resource_tracker
import pathlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from metrabs_ros.foreign_text import printable
from metrabs_ros.pose_estimator import PoseEstimator
from metrabs_ros.recordings.annotate import annotate
from metrabs_ros.recordings.options import AnnotateOptions, Summary
from metrabs_ros.regular_file import shown

_LOG = logging.getLogger(__name__)

MAX_ERROR_CHARS = 3000


class Task(NamedTuple):
    """A recording, where its results go, and what is wanted of it."""

    source: pathlib.Path
    output: pathlib.Path
    wanted: AnnotateOptions


class Outcome(NamedTuple):
    """What came of a recording, or why nothing did."""

    task: Task
    summary: Summary | None
    complaint: str = ''


def annotate_task(task: Task, show_progress: bool = False) -> Outcome:
    """Annotate a recording in this process; what goes wrong is returned, not raised."""
    remarks: list[str] = []
    warn = print if show_progress else remarks.append
    try:
        model = _model(task.wanted)
        return Outcome(task, annotate(*task, model, warn, show_progress))
    except (ValueError, RuntimeError, ImportError, OSError) as error:
        complaint = str(error) or type(error).__name__
    except Exception as error:  # Whatever it is, the other recordings are worked on.
        _LOG.debug('annotating %s failed', task.source, exc_info=True)
        complaint = f'{shown(task.source)} failed: {type(error).__name__}: {error}'
    return Outcome(task, None, printable(' '.join([*remarks, complaint]), MAX_ERROR_CHARS))


def run_in_processes(tasks: Sequence[Task], workers: int) -> Iterator[Outcome]:
    """
    Annotate recordings in so many processes, and return what comes of them as it comes.

    Where a process is killed, for example as it takes too much memory, nobody can tell by which
    recording: those that were not done are repeated one at a time.
    """
    undone = []
    with _submit(tasks, min(workers, max(len(tasks), 1))) as futures:
        for future in concurrent.futures.as_completed(futures):
            try:
                yield future.result()
            except concurrent.futures.process.BrokenProcessPool:
                undone.append(futures[future])
    for task in undone:
        with _submit([task], 1) as futures:
            try:
                yield next(iter(futures)).result()
            except concurrent.futures.process.BrokenProcessPool:
                yield Outcome(
                    task,
                    None,
                    f'{shown(task.source)} failed: its process was killed, which happens for '
                    'example if there is not enough memory',
                )


@contextlib.contextmanager
def _submit(
    tasks: Sequence[Task], workers: int
) -> Iterator[dict[concurrent.futures.Future[Outcome], Task]]:
    """
    Submit tasks to a pool of processes; they are terminated if the context ends early.

    Ctrl-C sends SIGINT to these processes, too.  It is blocked there, as Python would print a
    traceback in each process that is still importing modules.
    """
    others = set(multiprocessing.active_children())
    pool = _pool(workers)
    try:
        with _postpone_sigint():
            # The pool starts its processes here, and none later.
            futures = {pool.submit(annotate_task, task): task for task in tasks}
        yield futures
    except BaseException:
        with _postpone_sigint():
            for process in set(multiprocessing.active_children()) - others:
                process.terminate()
            pool.shutdown(cancel_futures=True)
        raise
    pool.shutdown()


def _pool(workers: int) -> concurrent.futures.ProcessPoolExecutor:
    # A network's threads do not survive a fork.
    context = multiprocessing.get_context('spawn')
    return concurrent.futures.ProcessPoolExecutor(workers, context, initializer=show_log_records)


def show_log_records() -> None:
    """Print the log records of this process as the command line does, without a prefix."""
    logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)


@contextlib.contextmanager
def _postpone_sigint() -> Iterator[None]:
    """
    Postpone SIGINT to the end of the context, and block it in processes that are started in it.

    Only the main thread handles signals, so that other threads only block it.
    """
    # It is started along with the first process, and would unblock the signal.
    multiprocessing.resource_tracker.ensure_running()
    is_main = threading.current_thread() is threading.main_thread()
    received: list[int] = []
    if is_main:
        # The system may deliver the signal to a thread that does not block it.
        before = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if is_main:
            signal.signal(signal.SIGINT, before)
            if received:
                signal.raise_signal(signal.SIGINT)


def run_on_ray(tasks: Sequence[Task], address: str) -> Iterator[Outcome]:
    """
    Annotate recordings on a Ray cluster, a task each.

    Parameters
    ----------
    tasks
        With paths that all machines of the cluster see.
    address
        Of the cluster; ``local`` for one on this machine, for this run only.

    Raises
    ------
    ImportError
        If Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError('--ray needs Ray: pip install ray') from error
    # Its tables of who runs where and of memory belong to a dashboard.
    ray.init(
        address=address,
        log_to_driver=False,
        include_dashboard=False if address == 'local' else None,
    )
    try:
        remote = ray.remote(annotate_task)
        waiting = [remote.remote(task) for task in tasks]
        while waiting:
            done, waiting = ray.wait(waiting)
            for reference in done:
                yield ray.get(reference)
    finally:
        ray.shutdown()


@functools.lru_cache(maxsize=1)
def _model(wanted: AnnotateOptions) -> PoseEstimator:
    """Load a model, or take that of the recording before."""
    return wanted.load_model()
