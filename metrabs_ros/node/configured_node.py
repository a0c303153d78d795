"""Lifecycle node with parameters that are the fields of a dataclass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Generic

import rclpy
from rcl_interfaces.msg import SetParametersResult
from rclpy.lifecycle import LifecycleState, TransitionCallbackReturn
from rclpy.logging import get_logger
from rclpy.parameter import Parameter

from metrabs_ros.foreign_text import printable
from metrabs_ros.node import parameters, process
from metrabs_ros.node.callback_failures import MAX_REASON_CHARS, GuardedExecutor, describe_error
from metrabs_ros.node.managed_node import ManagedNode, log_exceptions
from metrabs_ros.node.parameters import Values
from metrabs_ros.node.watchdog import interpreter_watchdog

ERROR = TransitionCallbackReturn.ERROR


class ConfiguredNode(ManagedNode, Generic[Values]):
    """
    Lifecycle node that validates its parameters and accepts integers for floating-point ones.

    Parameters
    ----------
    name
        Node name.
    settings_type
        Dataclass whose fields are defined by `parameters.setting`.

    Raises
    ------
    ValueError
        If a parameter has an invalid value.
    """

    def __init__(self, name: str, settings_type: type[Values], **options: Any) -> None:
        super().__init__(name, **options)
        self._settings_type = settings_type
        self.settings = parameters.declare(self, settings_type)
        self.add_on_set_parameters_callback(self._check)
        # Humble has no such callback; there, settings are applied when they are accepted.
        self._has_post_set_callback = hasattr(self, 'add_post_set_parameters_callback')
        if self._has_post_set_callback:
            self.add_post_set_parameters_callback(self._apply)

    # Lifecycle transitions that release what configure and activate have created.

    def unsubscribe(self) -> None:
        """Undo what activate has done, in any state; nodes override it."""

    def release(self) -> None:
        """Undo what configure has done, in any state; nodes override it."""

    @log_exceptions('cannot be deactivated', ERROR)
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe."""
        # Before the publishers are deactivated, so that the markers can be deleted.
        self.unsubscribe()
        return super().on_deactivate(state)

    @log_exceptions('cannot be cleaned up', ERROR)
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Release everything."""
        self.release()
        return super().on_cleanup(state)

    @log_exceptions('cannot be shut down', ERROR)
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and release everything, from any state."""
        with contextlib.ExitStack() as steps:
            steps.callback(self.release)
            self.unsubscribe()
        return super().on_shutdown(state)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Return to the unconfigured state after an exception."""
        self.run_all(self.unsubscribe, self.release)
        return TransitionCallbackReturn.SUCCESS

    def run_all(self, *steps: Callable[[], object]) -> None:
        """Run all steps of a release and log their exceptions."""
        for step in steps:
            try:
                step()
            except Exception as error:
                self.log_failure('not everything could be released', error)

    def check_settings(self, changed: Values) -> None:
        """
        Check settings before they are applied; nodes override it.

        Raises
        ------
        ValueError
            If a value is not possible at present.
        """

    def apply_settings(self) -> None:
        """Apply new `settings`; nodes override it."""

    def stop(self) -> None:
        """Stop threads before the node is destroyed; nodes with threads override it."""

    def set_parameters_atomically(self, parameter_list: list[Parameter]) -> SetParametersResult:
        """Set parameters atomically; integers are accepted for floating-point parameters."""
        return super().set_parameters_atomically(
            parameters.convert_to_declared_types(self._settings_type, parameter_list)
        )

    def set_parameters(self, parameter_list: list[Parameter]) -> list[SetParametersResult]:
        """Set parameters one by one; integers are accepted for floating-point parameters."""
        return super().set_parameters(
            parameters.convert_to_declared_types(self._settings_type, parameter_list)
        )

    def _check(self, changes: list[Parameter]) -> SetParametersResult:
        try:
            self.check_settings(parameters.with_changes(self.settings, changes))
        except ValueError as error:
            return SetParametersResult(successful=False, reason=printable(error, MAX_REASON_CHARS))
        if not self._has_post_set_callback:
            self._apply(changes)
        return SetParametersResult(successful=True)

    def _apply(self, changes: list[Parameter]) -> None:
        changed = parameters.with_changes(self.settings, changes)
        # Subscribing declares QoS parameters, which calls this method recursively.
        if changed != self.settings:
            self.settings = changed
            self.apply_settings()


def run_node(create: Callable[[], ConfiguredNode[Any]], name: str) -> int:
    """
    Create a node and run it until ROS is shut down; return the exit status of the process.

    Parameters
    ----------
    create
        Creates the node.  Its settings have the parameter `autostart`.
    name
        Name in log messages if it cannot be created.
    """
    with process.ros_context():
        # Created first, because an executor cannot be created after a signal.
        executor = GuardedExecutor()
        try:
            node = create()
        except Exception as error:
            if not rclpy.ok():
                raise
            get_logger(name).fatal(f'the node cannot start: {_one_line(error)}')
            return 1
        with contextlib.ExitStack() as steps:
            steps.enter_context(interpreter_watchdog())
            steps.callback(node.destroy_node)
            steps.callback(node.stop)
            steps.enter_context(process.forward_package_logs(node.get_logger()))
            started = TransitionCallbackReturn.SUCCESS
            if node.settings.autostart and node.trigger_configure() == started:
                node.trigger_activate()
            process.spin(node, executor)
    return 0


def _one_line(error: Exception) -> str:
    """Return the message of an exception on one line; if it is empty, describe the exception."""
    return printable(' '.join(str(error).split()), MAX_REASON_CHARS) or describe_error(error)
