"""Annotation of several recordings: planning, and parallel runs in processes or with Ray."""

from __future__ import annotations

import concurrent.futures
import concurrent.futures.process
import contextlib
import functools
import logging
import multiprocessing
import multiprocessing.resource_tracker
import os
import pathlib
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from metrabs_ros.child_process import end_with_parent
from metrabs_ros.foreign_text import escape_output, printable
from metrabs_ros.pose_estimator import PoseEstimator
from metrabs_ros.recordings.annotate import annotate, default_output
from metrabs_ros.recordings.bags import find_bags
from metrabs_ros.recordings.input_files import check_input
from metrabs_ros.recordings.options import AnnotateOptions, Summary
from metrabs_ros.recordings.output_files import Pair, absolute, find_conflicts
from metrabs_ros.regular_file import shown

_LOG = logging.getLogger(__name__)

MAX_ERROR_CHARS = 3000


class Task(NamedTuple):
    """A recording, the folder of its results, and the options."""

    source: pathlib.Path
    output: pathlib.Path
    options: AnnotateOptions


class Outcome(NamedTuple):
    """The summary of a task, or an error message."""

    task: Task
    summary: Summary | None
    error_message: str = ''


def plan_tasks(
    inputs: Sequence[pathlib.Path], output: pathlib.Path | None, options: AnnotateOptions
) -> tuple[list[Task], list[str]]:
    """
    Find the recordings at paths, and the folders of their results.

    Parameters
    ----------
    inputs
        Recordings, or folders with bags.
    output
        Folder of the results of a single recording, or parent folder of the results of several;
        None for folders next to the recordings.
    options
        Options of all tasks.

    Returns
    -------
    The tasks, and an error message for each recording that cannot be annotated.

    Raises
    ------
    ValueError
        If several recordings would be written to the same table.
    """
    inputs_and_errors = [item for path in inputs for item in _find_recordings(path)]
    if len(inputs_and_errors) > 1 and (options.csv or options.parquet):
        raise ValueError('with several recordings, --csv and --parquet must have no file name')
    outputs = [default_output(source) for source, _ in inputs_and_errors]
    if output is not None:
        is_single = len(outputs) == 1
        outputs = [output if is_single else output / path.name for path in outputs]
    # Unreadable inputs are included: no output may overwrite them.
    pairs = [Pair(source, folder) for (source, _), folder in zip(inputs_and_errors, outputs)]
    tasks, errors = [], []
    for pair, (_, error), conflict in zip(pairs, inputs_and_errors, find_conflicts(pairs)):
        if error or conflict:
            errors.append(error or conflict)
            continue
        # Links are not resolved: the name can determine the kind of the recording.
        source = pathlib.Path(os.path.abspath(pair.source))
        tasks.append(Task(source, absolute(pair.output), options))
    return tasks, errors


def _find_recordings(path: pathlib.Path) -> list[tuple[pathlib.Path, str]]:
    """Return the recordings at a path, each with ''; or the path and an error message."""
    try:
        check_input(path)
        return [(recording, '') for recording in find_bags(path)]
    except (ValueError, OSError) as error:
        return [(path, str(error))]


def annotate_task(task: Task, show_progress: bool = False) -> Outcome:
    """Annotate a recording in this process; exceptions are returned as error messages."""
    warnings: list[str] = []
    warn = print if show_progress else warnings.append
    try:
        model = _load_model(task.options)
        return Outcome(task, annotate(*task, model, warn, show_progress))
    except (ValueError, RuntimeError, ImportError, OSError) as error:
        message = str(error) or type(error).__name__
    except Exception as error:  # An unexpected error must not affect the other recordings.
        _LOG.debug('annotating %s failed', task.source, exc_info=True)
        message = f'{shown(task.source)} failed: {type(error).__name__}: {error}'
    return Outcome(task, None, printable(' '.join([*warnings, message]), MAX_ERROR_CHARS))


def run_in_processes(tasks: Sequence[Task], workers: int) -> Iterator[Outcome]:
    """
    Annotate recordings in a number of processes; return outcomes in the order of completion.

    If a process is killed, for example because memory is exhausted, the recording that caused it
    is unknown.  The unfinished recordings are then annotated again, one at a time.
    """
    unfinished = []
    with _submit(tasks, min(workers, max(len(tasks), 1))) as futures:
        for future in concurrent.futures.as_completed(futures):
            try:
                yield future.result()
            except concurrent.futures.process.BrokenProcessPool:
                unfinished.append(futures[future])
    for task in unfinished:
        with _submit([task], 1) as futures:
            try:
                yield next(iter(futures)).result()
            except concurrent.futures.process.BrokenProcessPool:
                yield Outcome(
                    task,
                    None,
                    f'{shown(task.source)} failed: its process was killed, possibly because '
                    'memory was exhausted',
                )


@contextlib.contextmanager
def _submit(
    tasks: Sequence[Task], workers: int
) -> Iterator[dict[concurrent.futures.Future[Outcome], Task]]:
    """
    Submit tasks to a pool of processes; they are terminated if the context ends early.

    Ctrl-C sends SIGINT to these processes, too.  They block it, because Python would print a
    traceback in each process that is still importing modules.
    """
    others = set(multiprocessing.active_children())
    pool = _pool(workers)
    try:
        with _postpone_sigint():
            # The pool starts all of its processes here.
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
    # Threads of a network do not survive a fork.
    context = multiprocessing.get_context('spawn')
    return concurrent.futures.ProcessPoolExecutor(workers, context, initializer=_start_worker)


def _start_worker() -> None:
    """Print the log records of this process, and end it with the process that started it."""
    # Otherwise, it would wait for tasks forever after SIGTERM or SIGKILL to the parent.
    end_with_parent()
    parent = multiprocessing.parent_process()
    # The parent may have ended before the call above.
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)
    show_log_records()


def show_log_records() -> None:
    """Print the log records of this process as the command line does, without a prefix."""
    escape_output()
    logging.basicConfig(level=logging.INFO, format='%(message)s', stream=sys.stdout)


@contextlib.contextmanager
def _postpone_sigint() -> Iterator[None]:
    """
    Postpone SIGINT to the end of the context; processes started in the context block it.

    Python handles signals in the main thread only, so that other threads need only block it.
    """
    # The tracker is started with the first process and would unblock the signal.
    multiprocessing.resource_tracker.ensure_running()
    is_main = threading.current_thread() is threading.main_thread()
    received: list[int] = []
    if is_main:
        # The kernel may deliver the signal to a thread that does not block it.
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
    Annotate recordings on a Ray cluster, one Ray task per recording.

    Parameters
    ----------
    tasks
        Tasks with paths that are accessible from all machines of the cluster.
    address
        Address of the cluster; ``local`` to start a temporary one on this machine.

    Raises
    ------
    ImportError
        If Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError('--ray needs Ray: pip install ray') from error
    # A temporary cluster needs no dashboard.
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
def _load_model(options: AnnotateOptions) -> PoseEstimator:
    """Load a model; consecutive recordings with equal options share it."""
    return options.load_model()
