"""Lifecycle node that logs failed transitions and survives exceptions of its callbacks."""

from __future__ import annotations

import copy
import functools
import gc
from collections.abc import Callable
from typing import Any, TypeVar

from lifecycle_msgs.srv import ChangeState
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions

from metrabs_ros.node import heap
from metrabs_ros.node.callback_failures import LOG_PERIOD_S, describe_error, guard_services

QOS_OVERRIDES = QoSOverridingOptions.with_default_policies()
"""Parameters ``qos_overrides.TOPIC.publisher.depth`` etc.: depth, history and reliability."""

Node = TypeVar('Node', bound='ManagedNode')
Transition = Callable[[Node, LifecycleState], TransitionCallbackReturn]


def log_exceptions(
    failure: str, result: TransitionCallbackReturn
) -> Callable[[Transition[Node]], Transition[Node]]:
    """
    Decorate a transition callback to log its exceptions, which rclpy discards.

    Parameters
    ----------
    failure
        Beginning of the log message.
    result
        Result of the transition if an exception is raised.
    """

    def decorate(callback: Transition[Node]) -> Transition[Node]:
        @functools.wraps(callback)
        def transition(node: Node, state: LifecycleState) -> TransitionCallbackReturn:
            try:
                return callback(node, state)
            except Exception as error:
                node.log_failure(failure, error)
            # Until here, the traceback referred to what the transition had created, for example
            # to a loaded model.
            gc.collect()
            heap.return_free_memory()
            return result

        return transition

    return decorate


class ManagedNode(LifecycleNode):
    """
    Lifecycle node that continues after exceptions of its callbacks.

    All its topics have parameters that override their QoS.

    Parameters
    ----------
    name
        Node name.
    """

    def __init__(self, name: str, **options: Any) -> None:
        # rclpy creates its own topics before parameters can be declared.
        self._is_initialised = False
        super().__init__(name, **options)
        self._is_initialised = True

    def guard_all_services(self) -> None:
        """Make all services respond even if callbacks fail; call once after creating them."""
        for service in self.services:
            if service.srv_type is ChangeState:
                service.callback = self._guard_transitions(service.callback)
        self.failures = guard_services(self)

    def log_failure(self, failure: str, error: Exception) -> None:
        """Log an exception, unless the shutdown of ROS caused it."""
        if self.context.ok():
            self.get_logger().error(f'{failure}: {describe_error(error)}')

    def create_publisher(
        self, msg_type: Any, topic: str, qos_profile: QoSProfile | int, **options: Any
    ) -> Any:
        """Create a publisher with parameters that override its QoS by default."""
        if self._is_initialised:
            options.setdefault('qos_overriding_options', QOS_OVERRIDES)
        # Copied, because rclpy writes the overrides into the profile, which may be shared.
        return super().create_publisher(msg_type, topic, copy.copy(qos_profile), **options)

    def create_lifecycle_publisher(
        self, msg_type: Any, topic: str, qos_profile: QoSProfile | int, **options: Any
    ) -> Any:
        """Create a lifecycle publisher with parameters that override its QoS by default."""
        options.setdefault('qos_overriding_options', QOS_OVERRIDES)
        return super().create_lifecycle_publisher(
            msg_type, topic, copy.copy(qos_profile), **options
        )

    def create_subscription(
        self,
        msg_type: Any,
        topic: str,
        callback: Callable[..., None],
        qos_profile: QoSProfile | int,
        **options: Any,
    ) -> Any:
        """
        Create a subscription with parameters that override its QoS by default.

        The parameters apply to the first subscription of a topic.  Further subscriptions keep
        their own profile by default.
        """
        if self._is_initialised and not self._is_subscribed_to(topic):
            options.setdefault('qos_overriding_options', QOS_OVERRIDES)
        return super().create_subscription(
            msg_type, topic, callback, copy.copy(qos_profile), **options
        )

    def _is_subscribed_to(self, topic: str) -> bool:
        name = self.resolve_topic_name(topic)
        return any(subscription.topic_name == name for subscription in self.subscriptions)

    def _guard_transitions(self, change_state: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the callback of change_state to reject transitions that are not possible."""

        def respond(request: ChangeState.Request, response: ChangeState.Response) -> Any:
            try:
                return change_state(request, response)
            except rclpy_implementation.RCLError as error:
                requested = request.transition.label or request.transition.id
                self.get_logger().warning(
                    f'the transition {requested} is not possible now: {describe_error(error)}',
                    throttle_duration_sec=LOG_PERIOD_S,
                )
                return ChangeState.Response(success=False)

        return respond
