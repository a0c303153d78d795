"""Handling of callback exceptions: they are logged and counted, and do not end the process."""

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
"""Minimum time between two log messages of one kind of exception, in seconds."""
MAX_ERROR_KINDS = 100
"""Maximum number of (callback, exception type) pairs that are logged separately."""
PAUSE_S = 0.01
"""Pause of the executor after an exception, which limits the CPU load of recurring exceptions."""
MAX_REASON_CHARS = 300
"""Maximum length of an exception message, in characters."""


def describe_error(error: BaseException) -> str:
    """Return the type, message and source location of an exception on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f' ({pathlib.Path(frames[-1].filename).name}:{frames[-1].lineno})' if frames else ''
    return f'{type(error).__name__}: {printable(error, MAX_REASON_CHARS)}{place}'


class CallbackFailures:
    """
    Counts exceptions of callbacks and logs each kind at most once per `LOG_PERIOD_S`.

    Parameters
    ----------
    logger
        ROS logger.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self._lock = threading.Lock()
        self._logged_s: dict[tuple[str, str], float] = {}
        self.count = 0

    def report(self, callback: str, error: Exception) -> None:
        """Count an exception of a callback, and log it unless logged recently."""
        now_s = time.monotonic()
        kind = callback, type(error).__name__
        with self._lock:
            self.count += 1
            if kind not in self._logged_s and len(self._logged_s) >= MAX_ERROR_KINDS:
                kind = 'other', ''
            if now_s - self._logged_s.get(kind, -LOG_PERIOD_S) < LOG_PERIOD_S:
                return
            self._logged_s[kind] = now_s
            count = self.count
        self._logger.error(
            f'the callback of {printable(callback)} failed, {count} failures so far: '
            f'{describe_error(error)}'
        )


class GuardedExecutor(SingleThreadedExecutor):
    """
    Executor that continues after callback exceptions, which end the executors of rclpy.

    Exceptions are reported to the attribute ``failures`` of the node.  If the node has no such
    attribute, they are raised.  SystemExit, KeyboardInterrupt and exceptions caused by a shutdown
    of ROS are always raised.
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
            _unblock(entity)
        _report(node, _callback_name(entity), failure)


def _report(node: Any, callback: str, error: Exception) -> None:
    if not hasattr(node, 'failures'):
        raise error
    node.failures.report(callback, error)
    time.sleep(PAUSE_S)


def _unblock(entity: Any) -> None:
    """Allow the entity and its callback group to be executed again."""
    # rclpy does this only if the callback raises, not if taking the message raises.
    entity._executor_event = False
    if not entity.callback_group.can_execute(entity):
        entity.callback_group.ending_execution(entity)


def _callback_name(entity: Any) -> str:
    name = getattr(entity, 'topic', None) or getattr(entity, 'srv_name', None)
    return str(name or f'a {type(entity).__name__.lower()}')


def guard_services(node: Node) -> CallbackFailures:
    """
    Make all existing services of a node respond even if their callbacks fail.

    Returns
    -------
    Counter of the failures, to be stored in the attribute ``failures`` of the node, which
    `GuardedExecutor` uses.
    """
    failures = CallbackFailures(node.get_logger())
    for service in node.services:
        guard_service(service, failures)
    return failures


def guard_service(service: Any, failures: CallbackFailures) -> None:
    """
    Make a service return an error response if its callback raises an exception.

    Otherwise the exception would end the executors of rclpy, and the client would not get a
    response.

    Parameters
    ----------
    service
        Service of rclpy.
    failures
        Counter of the exceptions.
    """
    callback = service.callback

    def respond(request: Any, response: Any) -> Any:
        try:
            return callback(request, response)
        except Exception as error:
            failures.report(service.srv_name, error)
            return error_response(service.srv_type, request, describe_error(error))

    service.callback = respond


def error_response(service_type: Any, request: Any, reason: str) -> Any:
    """
    Return an error response, with the reason if the type has a field for it.

    Parameters
    ----------
    service_type
        Service type.
    request
        Failed request.
    reason
        Reason of the failure.
    """
    response = service_type.Response()
    failed = SetParametersResult(successful=False, reason=reason)
    # The cases are SetParameters, SetParametersAtomically, GetTypeDescription, and both Trigger
    # and SetBool.
    if hasattr(response, 'results'):
        response.results = [failed] * len(request.parameters)
    elif isinstance(getattr(response, 'result', None), SetParametersResult):
        response.result = failed
    elif hasattr(response, 'failure_reason'):
        response.failure_reason = reason
    elif hasattr(response, 'message'):
        response.message = reason
    return response
