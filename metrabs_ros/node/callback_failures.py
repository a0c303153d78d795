"""Exceptions of callbacks: logged, counted, and kept from ending the process."""

from __future__ import annotations

import pathlib
import threading
import time
import traceback
from typing import Any

from rcl_interfaces.msg import SetParametersResult
from rclpy.executors import ShutdownException, SingleThreadedExecutor, TimeoutException
from rclpy.node import Node

from metrabs_ros.foreign_text import printable

LOG_PERIOD_S = 10.0
MOST_KINDS = 100
PAUSE_S = 0.01
"""Pause of the executor after an exception, so that one that recurs does not use a core."""
LONGEST_REASON = 300
"""Characters of an exception's message."""


def described(error: BaseException) -> str:
    """Return an exception's type, message and place in the source, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f' ({pathlib.Path(frames[-1].filename).name}:{frames[-1].lineno})' if frames else ''
    return f'{type(error).__name__}: {printable(error, LONGEST_REASON)}{place}'


class CallbackFailures:
    """
    Counts exceptions of callbacks, and logs each kind at most once per `LOG_PERIOD_S`.

    Parameters
    ----------
    logger
        The ROS logger.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._logged_s: dict[tuple[str, str], float] = {}
        self.count = 0

    def report(self, callback: str, error: Exception) -> None:
        """Count an exception of a callback, and log it unless its kind was logged recently."""
        now_s = time.monotonic()
        kind = callback, type(error).__name__
        with self._lock:
            self.count += 1
            if kind not in self._logged_s and len(self._logged_s) >= MOST_KINDS:
                kind = 'other', ''
            if now_s - self._logged_s.get(kind, -LOG_PERIOD_S) < LOG_PERIOD_S:
                return
            self._logged_s[kind] = now_s
            count = self.count
        self._logger.error(
            f'the callback of {printable(callback)} failed, {count} failures so far: '
            f'{described(error)}'
        )


class GuardedExecutor(SingleThreadedExecutor):
    """
    Goes on after exceptions of callbacks, which would end rclpy's executors.

    Exceptions are reported to the attribute ``failures`` of the callback's node; those of nodes
    without one are raised.  SystemExit and KeyboardInterrupt end the spinning, and so does
    whatever a shutdown of ROS causes.
    """

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Wait for one callback and run it."""
        try:
            task, entity, node = self.wait_for_ready_callbacks(timeout_sec=timeout_sec)
        except (TimeoutException, ShutdownException):
            return
        except Exception as error:
            if not self.context.ok():
                raise
            for node in self.get_nodes():
                _report(node, 'the executor', error)
            return
        task()
        failure = task.exception()
        if failure is None:
            return
        if not isinstance(failure, Exception) or not self.context.ok():
            raise failure
        if entity is not None:
            _release(entity)
        _report(node, _name_of(entity), failure)


def _report(node: Any, callback: str, error: Exception) -> None:
    if not hasattr(node, 'failures'):
        raise error
    node.failures.report(callback, error)
    time.sleep(PAUSE_S)


def _release(entity: Any) -> None:
    """Let an entity be executed again, and others of its group, which it may still block."""
    # rclpy does this only for exceptions of the callback, not of what takes the message before.
    entity._executor_event = False
    if not entity.callback_group.can_execute(entity):
        entity.callback_group.ending_execution(entity)


def _name_of(entity: Any) -> str:
    name = getattr(entity, 'topic', None) or getattr(entity, 'srv_name', None)
    return str(name or f'a {type(entity).__name__.lower()}')


def guard_services(node: Node) -> CallbackFailures:
    """
    Have requests to all services that a node has by now answered, even if their callbacks fail.

    Returns
    -------
    Counts the failures; for the node's attribute ``failures``, where `GuardedExecutor` reports.
    """
    failures = CallbackFailures(node.get_logger())
    for service in node.services:
        answer_despite_failures(service, failures)
    return failures


def answer_despite_failures(service: Any, failures: CallbackFailures) -> None:
    """
    Let a service refuse a request whose callback raises an exception.

    Otherwise the exception would end rclpy's executors, and the client would wait for ever.

    Parameters
    ----------
    service
        An rclpy service.
    failures
        Where exceptions are counted.
    """
    callback = service.callback

    def answer(request: Any, response: Any) -> Any:
        try:
            return callback(request, response)
        except Exception as error:
            failures.report(service.srv_name, error)
            return refusal(service.srv_type, request, described(error))

    service.callback = answer


def refusal(service_type: Any, request: Any, reason: str) -> Any:
    """
    Return the response that says that a request failed, and why if it has a place for that.

    Parameters
    ----------
    service_type
        The type of the service.
    request
        The request.
    reason
        Why it failed.
    """
    response = service_type.Response()
    failed = SetParametersResult(successful=False, reason=reason)
    # Of SetParameters, SetParametersAtomically, GetTypeDescription, Trigger and SetBool.
    if hasattr(response, 'results'):
        response.results = [failed] * len(request.parameters)
    elif isinstance(getattr(response, 'result', None), SetParametersResult):
        response.result = failed
    elif hasattr(response, 'failure_reason'):
        response.failure_reason = reason
    elif hasattr(response, 'message'):
        response.message = reason
    return response
