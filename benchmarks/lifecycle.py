"""Measure the memory of the node over many cycles of configure, activate and cleanup."""

from __future__ import annotations

import argparse
import os
import pathlib

import machine
import rclpy

from metrabs_ros.node.pose_node import PoseNode

SETTLED_ROUND = 20
PAGE_MIB = os.sysconf('SC_PAGE_SIZE') / 2**20


def memory_mib() -> float:
    """Return the resident memory of this process in MiB."""
    return int(pathlib.Path('/proc/self/statm').read_text().split()[1]) * PAGE_MIB


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=300)
    rounds = parser.parse_args().rounds
    rclpy.init()
    node = PoseNode()
    settled_mib = 0.0
    for i in range(1, rounds + 1):
        node.trigger_configure()
        assert node.is_configured()
        node.trigger_activate()
        node.trigger_deactivate()
        node.trigger_cleanup()
        if i == SETTLED_ROUND:
            settled_mib = memory_mib()
    end_mib = memory_mib()
    print(machine.describe())
    print(
        f'{rounds} lifecycle cycles with BlazePose: {settled_mib:.0f} MiB after cycle '
        f'{SETTLED_ROUND}, {end_mib:.0f} MiB at the end ({end_mib / settled_mib - 1:+.1%})'
    )
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == '__main__':
    main()
