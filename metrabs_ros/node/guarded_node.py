"""Node without a lifecycle that continues after exceptions of its callbacks."""

from __future__ import annotations

from rclpy.node import Node

from metrabs_ros.node.callback_failures import guard_services


class GuardedNode(Node):
    """
    Node that logs and counts exceptions of its callbacks; spin it with a `GuardedExecutor`.

    Requests to its parameter services get a response even if the callback fails.

    Parameters
    ----------
    name
        Node name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.failures = guard_services(self)
