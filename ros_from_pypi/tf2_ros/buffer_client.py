"""Client of a transform buffer in another node."""

from __future__ import annotations

import threading
import warnings
from typing import Any

import builtin_interfaces.msg
import tf2_py
from geometry_msgs.msg import TransformStamped
from rclpy.action.client import ActionClient
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.time import Time
from tf2_msgs.action import LookupTransform
from tf2_msgs.msg import TF2Error

from .buffer_interface import BufferInterface

_ERRORS = {
    TF2Error.LOOKUP_ERROR: tf2_py.LookupException,
    TF2Error.CONNECTIVITY_ERROR: tf2_py.ConnectivityException,
    TF2Error.EXTRAPOLATION_ERROR: tf2_py.ExtrapolationException,
    TF2Error.INVALID_ARGUMENT_ERROR: tf2_py.InvalidArgumentException,
    TF2Error.TIMEOUT_ERROR: tf2_py.TimeoutException,
}


class BufferClient(BufferInterface):
    """
    Requests transforms from a buffer server; its node must be spun in another thread.

    Parameters
    ----------
    node
        Node of the action client.
    ns
        Name of the action of the buffer server.
    check_frequency
        Unused; exists for compatibility with tf2_ros.
    timeout_padding
        Additional timeout for the response of the server.
    """

    def __init__(
        self,
        node: Node,
        ns: str,
        check_frequency: float = 10.0,
        timeout_padding: Duration = Duration(seconds=2.0),
    ) -> None:
        super().__init__()
        self.node = node
        self.action_client = ActionClient(node, LookupTransform, action_name=ns)
        self.check_frequency = check_frequency
        self.timeout_padding = timeout_padding

    def lookup_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = Duration(),
    ) -> TransformStamped:
        """Return the transform from the source frame to the target frame."""
        if isinstance(time, builtin_interfaces.msg.Time):
            warnings.warn(
                'a builtin_interfaces.msg.Time as time is deprecated; use rclpy.time.Time',
                stacklevel=2,
            )
            time = Time.from_msg(time)
        if not isinstance(time, Time):
            raise TypeError('Must pass a rclpy.time.Time object.')
        goal = LookupTransform.Goal()
        goal.target_frame = target_frame
        goal.source_frame = source_frame
        goal.source_time = time.to_msg()
        goal.timeout = timeout.to_msg()
        return self._call_server(goal)

    def lookup_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = Duration(),
    ) -> TransformStamped:
        """Return the transform between frames at two times via a fixed frame."""
        goal = LookupTransform.Goal()
        goal.target_frame = target_frame
        goal.source_frame = source_frame
        goal.source_time = source_time.to_msg()
        goal.timeout = timeout.to_msg()
        goal.target_time = target_time.to_msg()
        goal.fixed_frame = fixed_frame
        goal.advanced = True
        return self._call_server(goal)

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = Duration(),
    ) -> bool:
        """Return whether the transform from the source to the target frame is available."""
        try:
            self.lookup_transform(target_frame, source_frame, time, timeout)
        except tf2_py.TransformException:
            return False
        return True

    def can_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = Duration(),
    ) -> bool:
        """Return whether the transform between frames at two times is available."""
        try:
            self.lookup_transform_full(
                target_frame, target_time, source_frame, source_time, fixed_frame, timeout
            )
        except tf2_py.TransformException:
            return False
        return True

    def destroy(self) -> None:
        """Destroy the action client."""
        self.action_client.destroy()

    def _call_server(self, goal: LookupTransform.Goal) -> TransformStamped:
        if not self.action_client.server_is_ready():
            raise tf2_py.TimeoutException('The BufferServer is not ready.')
        timeout = Duration(
            nanoseconds=Duration.from_msg(goal.timeout).nanoseconds
            + self.timeout_padding.nanoseconds
        )
        handle = _result_within(self.action_client.send_goal_async(goal), timeout)
        if not handle.accepted:
            raise tf2_py.TimeoutException('The BufferServer did not accept the goal.')
        return _transform_of(_result_within(handle.get_result_async(), timeout).result)


def _result_within(future: Any, timeout: Duration) -> Any:
    done = threading.Event()
    future.add_done_callback(lambda _: done.set())
    if not done.wait(timeout.nanoseconds / 1e9):
        raise tf2_py.TimeoutException(
            'The LookupTransform goal sent to the BufferServer did not come back in the '
            'specified time. Something is likely wrong with the server.'
        )
    return future.result()


def _transform_of(result: LookupTransform.Result) -> TransformStamped:
    error = result.error
    if error.error != TF2Error.NO_ERROR:
        raise _ERRORS.get(error.error, tf2_py.TransformException)(error.error_string)
    return result.transform
