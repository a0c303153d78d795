"""A lifecycle node that goes on, and says so, where rclpy's would end or be silent."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any, TypeVar

from lifecycle_msgs.srv import ChangeState
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions

from metrabs_ros.node.callback_failures import LOG_PERIOD_S, described, guard_services

QOS_OVERRIDES = QoSOverridingOptions.with_default_policies()
"""Parameters ``qos_overrides.TOPIC.publisher.depth`` and so on: depth, history, reliability."""

Node = TypeVar('Node', bound='ManagedNode')
Transition = Callable[[Node, LifecycleState], TransitionCallbackReturn]


def reported(
    failure: str, outcome: TransitionCallbackReturn
) -> Callable[[Transition[Node]], Transition[Node]]:
    """
    Return a decorator of transition callbacks that logs their exceptions, which rclpy drops.

    Parameters
    ----------
    failure
        What failed: the beginning of the log message.
    outcome
        The outcome of a transition that raised an exception.
    """

    def decorate(callback: Transition[Node]) -> Transition[Node]:
        @functools.wraps(callback)
        def transition(node: Node, state: LifecycleState) -> TransitionCallbackReturn:
            try:
                return callback(node, state)
            except Exception as error:
                node.explain(failure, error)
                return outcome

        return transition

    return decorate


class ManagedNode(LifecycleNode):
    """
    A lifecycle node whose callbacks cannot end the process.

    All its topics have parameters that override their QoS.

    Parameters
    ----------
    name
        The node's name.
    """

    def __init__(self, name: str, **options: Any) -> None:
        # rclpy's own topics are created before there are parameters.
        self._has_parameters = False
        super().__init__(name, **options)
        self._has_parameters = True

    def answer_all_requests(self) -> None:
        """Have requests to all services that exist by now answered; call this once, at last."""
        for service in self.services:
            if service.srv_type is ChangeState:
                service.callback = self._refusing_transitions(service.callback)
        self.failures = guard_services(self)

    def explain(self, failure: str, error: Exception) -> None:
        """Log an exception, unless the shutdown of ROS caused it."""
        if self.context.ok():
            self.get_logger().error(f'{failure}: {described(error)}')

    def create_publisher(
        self, msg_type: Any, topic: str, qos_profile: QoSProfile | int, **options: Any
    ) -> Any:
        """Create a publisher, by default with parameters that override its QoS."""
        if self._has_parameters:
            options.setdefault('qos_overriding_options', QOS_OVERRIDES)
        # rclpy writes the overrides into the profile, which may be shared.
        return super().create_publisher(msg_type, topic, copy.copy(qos_profile), **options)

    def create_lifecycle_publisher(
        self, msg_type: Any, topic: str, qos_profile: QoSProfile | int, **options: Any
    ) -> Any:
        """Create a lifecycle publisher, by default with parameters that override its QoS."""
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
        Create a subscription, by default with parameters that override its QoS.

        A second subscription to the same topic keeps its own profile by default: the parameters
        belong to the first one.
        """
        if self._has_parameters and not self._is_subscribed_to(topic):
            options.setdefault('qos_overriding_options', QOS_OVERRIDES)
        return super().create_subscription(
            msg_type, topic, callback, copy.copy(qos_profile), **options
        )

    def _is_subscribed_to(self, topic: str) -> bool:
        name = self.resolve_topic_name(topic)
        return any(subscription.topic_name == name for subscription in self.subscriptions)

    def _refusing_transitions(self, change_state: Callable[..., Any]) -> Callable[..., Any]:
        """Return the callback of change_state, made to refuse what is not possible by now."""

        def answer(request: ChangeState.Request, response: ChangeState.Response) -> Any:
            try:
                return change_state(request, response)
            except rclpy_implementation.RCLError as error:
                wanted = request.transition.label or request.transition.id
                self.get_logger().warning(
                    f'the transition {wanted} is not possible now: {described(error)}',
                    throttle_duration_sec=LOG_PERIOD_S,
                )
                return ChangeState.Response(success=False)

        return answer
