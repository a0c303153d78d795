"""
Measure the time and the memory of the publication of ROS4HRI bodies.

    python benchmarks/hri_bodies.py

People appear and disappear, 10 at a time.  Another process subscribes to all topics of each body
while it is listed.  With `--people 20 --frames 200 --together 20`, the time per frame of 20 people
is measured.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

import machine
import numpy as np

sys.path.append(str(pathlib.Path(__file__).parents[1] / 'test' / 'kinematics'))

import rclpy
from bodies import people_of, standing
from builtin_interfaces.msg import Time
from hri_msgs.msg import IdsList
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from std_msgs.msg import Header

from metrabs_ros.node.body_publishers import HriPublishers, PeopleInImage
from metrabs_ros.node.hri_messages import load_hri_types
from metrabs_ros.node.managed_node import ManagedNode

RATE_HZ = 30.0
FRAMES_OF_EACH = 45
REPORTS = 10
UP = np.array([0.0, 0.0, 1.0])
STATUS = pathlib.Path('/proc/self/status')


def resident_kib() -> int:
    """Return the resident memory of this process."""
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith('VmRSS'))
    return int(line.split()[1])


def subscribe(topics: Sequence[str]) -> None:
    """Subscribe to topics of each body while it is listed, until ROS is shut down."""
    types = load_hri_types()
    kinds = {
        'roi': types.NormalizedRegionOfInterest2D,
        'skeleton2d': types.Skeleton2D,
        'joint_states': types.JointState,
        'position': types.PointStamped,
        'velocity': types.TwistStamped,
        'posture': types.BodyPosture,
    }
    rclpy.init()
    node = rclpy.create_node('consumer')
    bodies = {}
    received = [0]

    def count(message: object) -> None:
        received[0] += 1

    def update(message: IdsList) -> None:
        for body in set(bodies) - set(message.ids):
            for subscription in bodies.pop(body):
                node.destroy_subscription(subscription)
        for body in set(message.ids) - set(bodies):
            bodies[body] = [
                node.create_subscription(kind, f'/humans/bodies/{body}/{topic}', count, 10)
                for topic, kind in kinds.items()
                if not topics or topic in topics
            ]

    node.create_subscription(IdsList, '/humans/bodies/tracked', update, 10)
    with contextlib.suppress(ExternalShutdownException, KeyboardInterrupt):
        rclpy.spin(node)
    print(f'{received[0]} messages received', flush=True)


def main(arguments: Sequence[str] = tuple(sys.argv[1:])) -> int:
    """Publish bodies, and print the memory and the times."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--people', type=int, default=1000)
    parser.add_argument('--together', type=int, default=10)
    parser.add_argument('--frames', type=int, default=FRAMES_OF_EACH, help='frames of each person')
    parser.add_argument('--topics', nargs='*', default=[], help='subscribed topics; default: all')
    parser.add_argument('--links', action='store_true', help='with hri_tf')
    parser.add_argument('--alone', action='store_true', help='without subscribers')
    parser.add_argument('--subscribe', action='store_true', help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    os.environ.setdefault('ROS_DOMAIN_ID', '77')
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    if args.subscribe:
        subscribe(args.topics)
        return 0
    rclpy.init()
    node = ManagedNode('bodies')
    publishers = HriPublishers(node)
    node.guard_all_services()
    node.trigger_configure()
    node.trigger_activate()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    thread = threading.Thread(target=executor.spin)
    thread.start()
    consumer = None
    if not args.alone:
        consumer = subprocess.Popen(
            [sys.executable, __file__, '--subscribe', '--topics', *args.topics]
        )
        while not publishers._tracked.get_subscription_count():
            time.sleep(0.1)
    print(machine.describe())
    groups = args.people // args.together
    shown = PeopleInImage(np.zeros((480, 640, 3), np.uint8), Header())
    times_ms, stamp_s = [], 1000.0
    for group in range(groups + 1):
        ids = list(range(group * args.together + 1, (group + 1) * args.together + 1))
        places = [(500.0 * i, 3000.0, 900.0) for i in range(args.together)]
        people = people_of(standing(*places, l_elbow=60, l_r_hip=20), ids)
        if group == groups:
            people = people.select(np.zeros(0, np.intp))
        for _ in range(args.frames):
            stamp_s += 1 / RATE_HZ
            stamp = Time(sec=int(stamp_s), nanosec=int(stamp_s % 1 * 1e9))
            header = Header(stamp=stamp, frame_id='map')
            start_s, cpu_s = time.perf_counter(), time.thread_time()
            publishers.publish(people, UP, header, '', shown, args.links)
            times_ms.append(1000 * (time.thread_time() - cpu_s))
            time.sleep(max(0.0, 1 / RATE_HZ - (time.perf_counter() - start_s)) / 4)
        if group == groups or (group + 1) % max(1, groups // REPORTS) == 0:
            print(
                f'{(group + 1) * args.together} people: {resident_kib() / 1024:.1f} MiB resident, '
                f'{len(list(node.publishers))} publishers, median '
                f'{np.median(times_ms):.2f} ms, maximum {np.max(times_ms):.1f} ms of processor '
                'time per frame',
                flush=True,
            )
            times_ms.clear()
    left = [name for name, _ in node.get_topic_names_and_types() if '/bodies/p' in name]
    print(f'{len(left)} topics of bodies are left')
    if consumer is not None:
        consumer.terminate()
        consumer.wait()
    executor.shutdown()
    thread.join()
    node.destroy_node()
    rclpy.shutdown()
    return 0


if __name__ == '__main__':
    sys.exit(main())
