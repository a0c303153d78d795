"""A node without a lifecycle whose callbacks cannot end the process."""

from __future__ import annotations

from rclpy.node import Node

from metrabs_ros.node.callback_failures import guard_services


class GuardedNode(Node):
    """
    A node that counts and logs the exceptions of its callbacks; for a `GuardedExecutor`.

    Requests to its parameter services are answered even if they fail.

    Parameters
    ----------
    name
        The node's name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.failures = guard_services(self)
