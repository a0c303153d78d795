"""
Measure the delay and the processor time of the fusion node with several cameras.

Publishes the people of a simulated room as the pose nodes of its cameras would, in one process,
and receives the fused people.  The delay is the time from the last skeletons of a frame set to the
fused people; it includes two transports.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import random
import subprocess
import sys
import time

os.environ['ROS_DOMAIN_ID'] = str(random.SystemRandom().randint(1, 100))
os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
sys.path.append(str(pathlib.Path(__file__).parents[1] / 'test'))
sys.path.append(str(pathlib.Path(__file__).parents[1] / 'test' / 'node'))

import machine
import numpy as np
import rclpy
from robots import spinning, wait_for
from simulated_rooms import Room
from std_msgs.msg import Header
from test_fusion_node import Site, people_of, stamp_at

from metrabs_ros.conversions.people import to_message
from metrabs_ros.msg import SkeletonArray
from metrabs_ros.node.generated_messages import TYPES


def processor_s(process_id: int) -> float:
    """Return the processor time that a process has used, in seconds."""
    fields = pathlib.Path(f'/proc/{process_id}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def main() -> None:
    """Print delays and processor time."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--cameras', type=int, default=4)
    parser.add_argument('--people', type=int, default=5)
    parser.add_argument('--rate', type=float, default=30.0)
    parser.add_argument('--seconds', type=float, default=20.0)
    args = parser.parse_args()
    room = Room.random(args.cameras, args.people, 0)
    names = json.dumps(list(room.cameras))
    node = subprocess.Popen(
        [
            *(sys.executable, '-m', 'metrabs_ros.node.fusion_node', '--ros-args'),
            *('-p', f'cameras:={names}'),
        ]
    )
    rclpy.init()
    site = Site(room)
    # Prepared in advance, as the simulation takes more time than the fusion.
    steps = round(args.seconds * args.rate)
    sets = []
    for step in range(steps):
        people_mm = room.people_mm(step / args.rate)
        sets.append([people_of(own.observe(people_mm, 0.0)[0]) for own in site.cameras])
    received_s: dict[tuple[int, int], float] = {}
    with spinning(site):
        site.place()
        site.create_subscription(
            SkeletonArray,
            'fusion/skeletons',
            lambda m: received_s.setdefault(
                (m.header.stamp.sec, m.header.stamp.nanosec), time.monotonic()
            ),
            50,
        )
        for publishers in (site.skeletons, site.infos):
            wait_for(lambda p=publishers: all(own.get_subscription_count() for own in p.values()))
        site.send_infos()
        time.sleep(1.0)
        start_s, used_s = time.monotonic(), processor_s(node.pid)
        sent_s = {}
        for step, people in enumerate(sets):
            due_s = start_s + step / args.rate
            time.sleep(max(due_s - time.monotonic(), 0))
            stamp = stamp_at(time.time())
            for camera, own in zip(site.cameras, people):
                header = Header(stamp=stamp, frame_id=f'{camera.name}_optical_frame')
                site.skeletons[camera.name].publish(to_message(own, header, TYPES))
            sent_s[stamp.sec, stamp.nanosec] = time.monotonic()
        time.sleep(0.5)
        passed_s = time.monotonic() - start_s
        used_s = processor_s(node.pid) - used_s
        status = site.statuses()['fusion: people']
    delays_ms = 1000 * np.array(
        [received_s[key] - sent_s[key] for key in sent_s if key in received_s]
    )
    print(machine.describe())
    print(
        f'{args.cameras} cameras, {args.people} people, {args.rate:g} Hz: '
        f'{len(delays_ms)} of {steps} frame sets, delay p50 {np.median(delays_ms):.1f} ms, '
        f'p95 {np.percentile(delays_ms, 95):.1f} ms, {100 * used_s / passed_s:.0f} % of a core'
    )
    for value in status.values:
        if ' ms' in value.key:
            print(f'  {value.key}: {value.value}')
    node.terminate()
    node.wait()
    os._exit(0)


if __name__ == '__main__':
    main()
