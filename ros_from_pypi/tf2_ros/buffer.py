"""Buffer of transforms in this process."""

from __future__ import annotations

import threading
import time as wall_time
from collections.abc import Callable
from typing import Any

import rclpy.clock
import rclpy.logging
import rclpy.task
import tf2_py
from geometry_msgs.msg import TransformStamped
from rclpy.clock import JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node
from rclpy.task import Future
from rclpy.time import Time
from tf2_msgs.srv import FrameGraph

from .buffer_interface import BufferInterface

POLL_PERIOD_S = 0.02
MAX_JUMP_BACK = Duration(seconds=3.0)


class Buffer(tf2_py.BufferCore, BufferInterface):
    """
    Stores transforms and looks them up.

    Parameters
    ----------
    cache_time
        Time range of the stored transforms; 10 s by default.
    node
        Node that provides the service ``tf2_frames``, or None.  A jump back of its clock clears
        the buffer.
    """

    def __init__(self, cache_time: Duration | None = None, node: Node | None = None) -> None:
        tf2_py.BufferCore.__init__(self, cache_time)
        BufferInterface.__init__(self)
        self._new_data_callbacks: list[Callable[[], None]] = []
        self._callbacks_lock = threading.RLock()
        if node is not None:
            self.srv = node.create_service(FrameGraph, 'tf2_frames', self._get_frames)
            self.clock = node.get_clock()
        else:
            self.clock = rclpy.clock.Clock()
        self.jump_handle = self.clock.create_jump_callback(
            JumpThreshold(
                min_forward=None, min_backward=Duration(seconds=-1), on_clock_change=True
            ),
            post_callback=self.time_jump_callback,
        )

    def time_jump_callback(self, time_jump: TimeJump) -> None:
        """Clear the buffer after a jump back in time."""
        rclpy.logging.get_logger('tf2_buffer').warning(
            'Detected jump back in time. Clearing tf buffer.'
        )
        self.clear()

    def set_transform(self, transform: TransformStamped, authority: str) -> None:
        """Add the transform of a moving frame, and call the new-data callbacks."""
        super().set_transform(transform, authority)
        self._call_new_data_callbacks()

    def set_transform_static(self, transform: TransformStamped, authority: str) -> None:
        """Set the transform of a static frame, and call the new-data callbacks."""
        super().set_transform_static(transform, authority)
        self._call_new_data_callbacks()

    def lookup_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = Duration(),
    ) -> TransformStamped:
        """
        Return the transform from the source frame to the target frame.

        Parameters
        ----------
        target_frame
            Frame to transform into.
        source_frame
            Frame to transform from.
        time
            Time of the transform; 0 for the latest.
        timeout
            Timeout for the transform.
        """
        self.can_transform(target_frame, source_frame, time, timeout)
        return self.lookup_transform_core(target_frame, source_frame, time)

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
        self.can_transform_full(
            target_frame, target_time, source_frame, source_time, fixed_frame, timeout
        )
        return self.lookup_transform_full_core(
            target_frame, target_time, source_frame, source_time, fixed_frame
        )

    async def lookup_transform_async(
        self, target_frame: str, source_frame: str, time: Time
    ) -> TransformStamped:
        """Return the transform from the source frame to the target frame once it is available."""
        await self.wait_for_transform_async(target_frame, source_frame, time)
        return self.lookup_transform_core(target_frame, source_frame, time)

    async def lookup_transform_full_async(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
    ) -> TransformStamped:
        """Return the transform between frames at two times once it is available."""
        await self.wait_for_transform_full_async(
            target_frame, target_time, source_frame, source_time, fixed_frame
        )
        return self.lookup_transform_full_core(
            target_frame, target_time, source_frame, source_time, fixed_frame
        )

    def can_transform(
        self,
        target_frame: str,
        source_frame: str,
        time: Time,
        timeout: Duration = Duration(),
        return_debug_tuple: bool = False,
    ) -> Any:
        """Return whether the transform is available, and optionally the error message."""
        return _wait_for_transform(
            lambda: self.can_transform_core(target_frame, source_frame, time),
            timeout,
            return_debug_tuple,
        )

    def can_transform_full(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
        timeout: Duration = Duration(),
        return_debug_tuple: bool = False,
    ) -> Any:
        """Return whether the transform is available, and optionally the error message."""
        return _wait_for_transform(
            lambda: self.can_transform_full_core(
                target_frame, target_time, source_frame, source_time, fixed_frame
            ),
            timeout,
            return_debug_tuple,
        )

    def wait_for_transform_async(self, target_frame: str, source_frame: str, time: Time) -> Future:
        """Return a future that is completed when the transform is available."""
        return self._future(
            lambda: self.can_transform_core(target_frame, source_frame, time)[0],
            lambda: self.lookup_transform_core(target_frame, source_frame, time),
        )

    def wait_for_transform_full_async(
        self,
        target_frame: str,
        target_time: Time,
        source_frame: str,
        source_time: Time,
        fixed_frame: str,
    ) -> Future:
        """Return a future that is completed when the transform is available."""
        arguments = (target_frame, target_time, source_frame, source_time, fixed_frame)
        return self._future(
            lambda: self.can_transform_full_core(*arguments)[0],
            lambda: self.lookup_transform_full_core(*arguments),
        )

    def _future(
        self, can_transform: Callable[[], bool], lookup: Callable[[], TransformStamped]
    ) -> Future:
        future: Future = rclpy.task.Future()

        def on_new_data() -> None:
            try:
                if not future.done() and can_transform():
                    future.set_result(lookup())
            except Exception as error:
                future.set_exception(error)

        # Registered before the first check, so that no transform is missed in between.
        with self._callbacks_lock:
            self._new_data_callbacks.append(on_new_data)
            future.add_done_callback(lambda _: self._remove_callback(on_new_data))
            on_new_data()
        return future

    def _call_new_data_callbacks(self) -> None:
        with self._callbacks_lock:
            for callback in list(self._new_data_callbacks):
                callback()

    def _remove_callback(self, callback: Callable[[], None]) -> None:
        with self._callbacks_lock:
            if callback in self._new_data_callbacks:
                self._new_data_callbacks.remove(callback)

    def _get_frames(
        self, request: FrameGraph.Request, response: FrameGraph.Response
    ) -> FrameGraph.Response:
        response.frame_yaml = self.all_frames_as_yaml()
        return response


def _wait_for_transform(
    can_transform: Callable[[], tuple[bool, str]], timeout: Duration, return_debug_tuple: bool
) -> Any:
    """Wait until the transform is available, the timeout expires, or the clock jumps back."""
    if timeout != Duration():
        clock = rclpy.clock.Clock()
        start = clock.now()
        while start - MAX_JUMP_BACK <= clock.now() < start + timeout and not can_transform()[0]:
            wall_time.sleep(POLL_PERIOD_S)
    result = can_transform()
    return result if return_debug_tuple else result[0]
