"""The fusion node publishes each person once, and goes on if cameras fail."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import gc
import time

import numpy as np
import pytest
import rclpy
import tf2_ros
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point, TransformStamped
from rclpy.node import Node
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from robots import call, spinning, wait_for
from sensor_msgs.msg import CameraInfo
from simulated_rooms import FOCAL_PX, IMAGE_SHAPE, Room, simulated_cameras
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from tf2_ros import StaticTransformBroadcaster
from visualization_msgs.msg import MarkerArray

from metrabs_ros.conversions.people import to_message, to_people
from metrabs_ros.conversions.transforms import quaternions
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.msg import ImagePoint, Skeleton, SkeletonArray
from metrabs_ros.node.fusion_node import FusionNode
from metrabs_ros.node.generated_messages import TYPES
from metrabs_ros.node.latched_topics import LATCHED
from metrabs_ros.people import MM_PER_M, People
from metrabs_ros.skeletons.conventions import COCO_17

RATE_HZ = 10.0
MAX_ERROR_MM = 60.0


def people_of(frame: CameraPeople) -> People:
    """Return the people of a simulated camera in its optical frame."""
    count = len(frame)
    to_camera = frame.camera.extrinsic_matrix
    people = People(
        frame.skeleton,
        np.zeros((count, 4)),
        np.full(count, 0.9),
        frame.poses3d_mm,
        frame.points2d_px,
        frame.joint_confidence,
        np.ones(frame.joint_confidence.shape, bool),
        np.arange(count),
        network_poses2d_px=frame.points2d_px,
        axis_std_mm=frame.axis_std_mm,
    )
    return people.transformed(to_camera[:3, :3], to_camera[:3, 3], frame.camera.position_mm)


def stamp_at(time_s):
    return Time(sec=int(time_s), nanosec=round(time_s % 1 * 1e9) % 1_000_000_000)


class Site(Node):
    """Cameras of a simulated room, whose pose nodes publish skeletons."""

    def __init__(self, room, noise=0.3):
        super().__init__('site')
        self.room, self.skeleton = room, COCO_17
        self.cameras = simulated_cameras(room, RATE_HZ, 0, noise)
        self.fused, self.markers, self.diagnostics = [], [], []
        self.skeletons = {
            camera.name: self.create_publisher(SkeletonArray, f'{camera.name}/pose/skeletons', 10)
            for camera in self.cameras
        }
        self.infos = {
            camera.name: self.create_publisher(
                CameraInfo, f'{camera.name}/camera_info', qos_profile_sensor_data
            )
            for camera in self.cameras
        }
        self.create_subscription(SkeletonArray, 'fusion/skeletons', self.fused.append, 50)
        self.create_subscription(MarkerArray, 'fusion/markers', self.markers.append, 50)
        self.create_subscription(DiagnosticArray, '/diagnostics', self.diagnostics.append, 50)
        self.transforms = tf2_ros.Buffer()
        self.listener = tf2_ros.TransformListener(self.transforms, self)
        self.broadcaster = StaticTransformBroadcaster(self)
        self.service_clients = {}
        self.sent = {camera.name: [] for camera in self.cameras}
        self.start_s = self.now_s = time.time()

    def place(self, *names):
        """Publish the poses of cameras, by default of all."""
        transforms = []
        for camera in self.cameras:
            if names and camera.name not in names:
                continue
            pose = np.linalg.inv(camera.camera.extrinsic_matrix)
            message = TransformStamped(child_frame_id=f'{camera.name}_optical_frame')
            message.header.frame_id = 'map'
            x, y, z, w = quaternions(pose[None, :3, :3])[0].tolist()
            rotation, translation = message.transform.rotation, message.transform.translation
            rotation.x, rotation.y, rotation.z, rotation.w = x, y, z, w
            translation.x, translation.y, translation.z = (pose[:3, 3] / MM_PER_M).tolist()
            transforms.append(message)
        self.broadcaster.sendTransform(transforms)

    def turn(self, name):
        """Publish a wrong pose of a camera, by turning it upside down."""
        (message,) = (
            t
            for t in self.broadcaster.net_message.transforms
            if t.child_frame_id == f'{name}_optical_frame'
        )
        turn = message.transform.rotation
        turn.x, turn.y, turn.z, turn.w = turn.y, -turn.x, turn.w, -turn.z
        self.broadcaster.sendTransform([])

    def wait_for_node(self, node):
        """Wait until the node receives skeletons, calibrations and poses of all cameras."""
        for publishers in (self.skeletons, self.infos):
            wait_for(lambda p=publishers: all(o.get_subscription_count() for o in p.values()))
        wait_for(lambda: self.count_publishers('fusion/skeletons'))
        self.send_infos()
        wait_for(lambda: all(own._info is not None for own in node._inputs))

    def send_infos(self):
        for name, publisher in self.infos.items():
            info = CameraInfo(height=IMAGE_SHAPE[0], width=IMAGE_SHAPE[1])
            info.header.frame_id = f'{name}_optical_frame'
            info.k = [FOCAL_PX, 0.0, 639.5, 0.0, FOCAL_PX, 359.5, 0.0, 0.0, 1.0]
            info.distortion_model, info.d = 'plumb_bob', [0.0] * 5
            publisher.publish(info)

    def step(self, *names, ahead_s=0.0):
        """Publish the skeletons of cameras at the same time, by default of all; return it."""
        self.now_s += 1 / RATE_HZ
        time_s = self.now_s
        # The same scene whenever the test runs.
        people_mm = self.room.people_mm((time_s - self.start_s) % 100)
        for camera in self.cameras:
            if names and camera.name not in names:
                continue
            frame, _ = camera.observe(people_mm, time_s)
            frame = dataclasses.replace(frame, skeleton=self.skeleton)
            header = Header(
                stamp=stamp_at(time_s + ahead_s), frame_id=f'{camera.name}_optical_frame'
            )
            self.skeletons[camera.name].publish(to_message(people_of(frame), header, TYPES))
            self.sent[camera.name].append(time_s)
        return people_mm

    def catch_up(self):
        """Wait until the present time is that of the stamps, so that their ages do not change."""
        time.sleep(max(self.now_s - time.time(), 0))

    def run(self, steps, *names):
        """Publish skeletons at their rate; return the true people and the last fused ones."""
        for _ in range(steps):
            people_mm = self.step(*names)
            stamp = stamp_at(self.now_s)
            wait_for(lambda s=stamp: [m for m in self.fused if m.header.stamp == s])
        return people_mm, to_people(self.fused[-1])

    def statuses(self):
        """Return the statuses of the next diagnostics message of the node by name."""
        self.diagnostics.clear()
        wait_for(lambda: self.diagnostics)
        return {status.name: status for status in self.diagnostics[-1].status}


@contextlib.contextmanager
def fusion_node(room, place=(), **parameters):
    """Run the node and a site."""
    gc.collect()
    rclpy.init()
    values = {'cameras': list(room.cameras), **parameters}
    overrides = [Parameter(name, value=value) for name, value in values.items()]
    node, site = FusionNode(parameter_overrides=overrides), Site(room)
    try:
        node.trigger_configure()
        node.trigger_activate()
        with spinning(node, site):
            site.place(*place)
            site.wait_for_node(node)
            yield node, site
    finally:
        site.listener.unregister()
        for own in (node, site):
            own.destroy_node()
        rclpy.shutdown()


def errors_mm(people, true_mm):
    """Return the mean joint error of each true person to the nearest person."""
    distances_mm = np.linalg.norm(people.poses3d_mm[None] - true_mm[:, None], axis=-1).mean(
        axis=-1
    )
    return distances_mm.min(axis=1)


def test_each_person_is_published_once_in_the_fixed_frame():
    with fusion_node(Room.random(3, 2, 0)) as (node, site):
        true_mm, people = site.run(15)
        assert len(people) == 2
        assert errors_mm(people, true_mm).max() < MAX_ERROR_MM
        assert site.fused[-1].header.frame_id == 'map'
        ids = people.ids.tolist()
        wait_for(lambda: site.transforms.can_transform('map', f'person_{ids[0]}', Time()))
        frame = site.transforms.lookup_transform('map', f'person_{ids[0]}', Time()).transform
        assert 0.5 < frame.translation.z < 1.3
        _, people = site.run(5)
        assert people.ids.tolist() == ids
        assert node._drops.counts() == {}
        wait_for(lambda: site.markers)
        shown = {marker.ns for marker in site.markers[-1].markers}
        assert shown == {'joints', 'bones', 'text', 'cameras'}
        (frustums,) = (m for m in site.markers[-1].markers if m.ns == 'cameras')
        assert len(frustums.points) == 3 * 8 * 2
        set_parameters_of_fusion(site, rays=True)
        site.run(1)
        wait_for(lambda: any(m.ns == 'rays' for m in site.markers[-1].markers))


def set_parameters_of_fusion(site, **values):
    from rcl_interfaces.srv import SetParameters

    parameters = [Parameter(n, value=v).to_parameter_msg() for n, v in values.items()]
    answer, _ = call(site, SetParameters, 'fusion/set_parameters', parameters=parameters)
    assert all(result.successful for result in answer.results)


def test_if_all_cameras_but_one_stop_its_people_remain():
    with fusion_node(Room.random(3, 1, 1)) as (_, site):
        _, people = site.run(10)
        ids = people.ids.tolist()
        true_mm, people = site.run(10, 'camera0')
        assert people.ids.tolist() == ids
        assert errors_mm(people, true_mm).max() < 500


def test_a_camera_without_a_pose_is_reported_and_the_others_continue():
    with fusion_node(Room.random(3, 1, 2), place=('camera0', 'camera1')) as (node, site):
        true_mm, people = site.run(10)
        assert errors_mm(people, true_mm).max() < MAX_ERROR_MM
        wait_for(lambda: node._drops.counts().get('no transform', 0) >= 5)
        site.statuses()
        statuses = site.statuses()
        values = {v.key: v.value for v in statuses['fusion: camera camera2'].values}
        assert int(values['dropped: no transform']) >= 5
        assert values['fused'] == '0'
        assert 'there is no transform' in node._problems['camera2']


def test_a_camera_with_another_clock_is_excluded():
    with fusion_node(Room.random(3, 1, 3)) as (node, site):
        for _ in range(12):
            site.catch_up()
            site.step('camera0', 'camera1')
            site.now_s -= 1 / RATE_HZ
            true_mm = site.step('camera2', ahead_s=5.0)
            stamp = stamp_at(site.now_s)
            wait_for(lambda s=stamp: [m for m in site.fused if m.header.stamp == s])
        assert node._drops.counts()['clock'] >= 8
        assert 'ahead of' in node._drops.explanations()['clock']
        assert errors_mm(to_people(site.fused[-1]), true_mm).max() < MAX_ERROR_MM


def test_rays_are_published_if_the_clock_of_a_camera_jumps():
    with fusion_node(Room.random(3, 1, 3), rays=True) as (node, site):
        _, people = site.run(5)
        for _ in range(18):
            site.catch_up()
            site.step('camera0', 'camera1')
            site.now_s -= 1 / RATE_HZ
            site.step('camera2', ahead_s=5.0)
            stamp = stamp_at(site.now_s)
            wait_for(lambda s=stamp: [m for m in site.fused if m.header.stamp == s])
        assert 'camera2' not in node._latest
        assert set(node._drops.counts()) == {'clock'}
        assert to_people(site.fused[-1]).ids.tolist() == people.ids.tolist()


def test_of_two_cameras_the_one_with_the_right_clock_is_used_if_it_starts_later():
    with fusion_node(Room.random(2, 1, 3)) as (node, site):
        for _ in range(4):
            site.catch_up()
            site.step('camera0', ahead_s=5.0)
            wait_for(lambda: node._messages['camera0'] == len(site.sent['camera0']))
        for _ in range(12):
            site.catch_up()
            site.step('camera0', ahead_s=5.0)
            site.now_s -= 1 / RATE_HZ
            site.step('camera1')
            wait_for(lambda: node._messages == {n: len(s) for n, s in site.sent.items()})
        assert node._fused['camera1'] >= 6
        assert to_people(site.fused[-1]).seen.all()


def count_all(node):
    """Return the numbers of fused and of dropped messages of each camera, summed."""
    counts = collections.Counter(node._fused)
    for (_, camera), count in node._drops.counts_by_camera().items():
        counts[camera] += count
    return counts


def test_each_message_is_counted_once():
    with fusion_node(Room.random(3, 1, 2)) as (node, site):
        site.run(5)
        site.turn('camera2')
        site.run(25)
        # Reasons of every message, read again until the last frame set is fused.
        wait_for(lambda: count_all(node) == collections.Counter(node._messages))
        assert set(node._drops.counts_by_camera()) == {('inconsistent camera', 'camera2')}
        assert 'misses' in node._problems['camera2']


def test_the_node_does_not_need_simulated_time_to_go_on():
    with fusion_node(Room.random(2, 1, 4), use_sim_time=True) as (_, site):
        site.run(2)
        # The set waits for the other camera until a timeout.
        site.run(1, 'camera0')
        assert site.statuses()


def test_messages_of_a_camera_that_is_listed_twice_are_counted_after_a_jump_back():
    room = Room.random(2, 1, 2)
    twice = room.cameras | {'twin': room.cameras['camera0']}
    with fusion_node(dataclasses.replace(room, cameras=twice)) as (node, site):
        site.run(2)
        site.step('twin')
        wait_for(lambda: count_all(node)['twin'] == 3)
        assert not node._stamps
        site.now_s -= 20.0
        for _ in range(4):
            site.step()
            wait_for(lambda: node._messages == {n: len(s) for n, s in site.sent.items()})
        wait_for(lambda: count_all(node) == collections.Counter(node._messages))
        assert node.failures.count == 0


def test_messages_that_wait_are_counted_when_the_node_is_deactivated():
    with fusion_node(Room.random(2, 1, 4), place=['camera0'], tf_timeout=10.0) as (node, site):
        site.place('camera1')
        site.run(2)
        site.step('camera0')
        header = Header(stamp=stamp_at(site.now_s), frame_id='unknown')
        site.skeletons['camera1'].publish(
            SkeletonArray(skeleton_name='x', joint_names=['hip'], header=header)
        )
        wait_for(lambda: sum(node._messages.values()) == 6)
        node.trigger_deactivate()
        assert count_all(node) == collections.Counter(node._messages)


def test_a_latched_camera_info_is_used_after_a_restart():
    with fusion_node(Room.random(2, 1, 4)) as (node, site):
        for name in site.infos:
            site.infos[name] = site.create_publisher(CameraInfo, f'{name}/camera_info', LATCHED)
        site.send_infos()
        node.trigger_deactivate()
        node.trigger_activate()
        wait_for(lambda: all(own._info is not None for own in node._inputs))
        site.run(2)


def test_the_skeleton_is_that_of_most_cameras():
    with fusion_node(Room.random(3, 1, 2)) as (node, site):
        names = [f'joint{i}' for i in range(1000)]
        for k in range(2):
            header = Header(stamp=stamp_at(site.now_s + k), frame_id='camera0_optical_frame')
            other = SkeletonArray(skeleton_name='x', joint_names=names, header=header)
            site.skeletons['camera0'].publish(other)
            wait_for(lambda: node._messages['camera0'])
            true_mm, people = site.run(10, 'camera1', 'camera2')
            assert people.skeleton.name == 'coco_17'
            assert errors_mm(people, true_mm).max() < MAX_ERROR_MM
        assert 'x has no joint of the skeleton coco_17' in node._problems['camera0']


def test_ids_are_not_used_again_after_a_change_of_the_skeleton():
    with fusion_node(Room.random(2, 1, 4)) as (_, site):
        _, people = site.run(5)
        assert people.ids.tolist() == [1]
        site.skeleton = dataclasses.replace(COCO_17, name='other')
        _, people = site.run(8)
        assert people.skeleton.name == 'other'
        assert people.ids.min() > 1


def test_each_stamp_is_published_once():
    with fusion_node(Room.random(2, 1, 4)) as (_, site):
        site.run(5)
        site.step('camera0', ahead_s=-0.13)
        time.sleep(0.1)
        site.run(3)
        stamps = [(m.header.stamp.sec, m.header.stamp.nanosec) for m in site.fused]
        assert stamps == sorted(set(stamps))


def test_ids_are_not_used_again_after_a_deactivation():
    with fusion_node(Room.random(2, 1, 4)) as (node, site):
        _, people = site.run(5)
        assert people.ids.tolist() == [1]
        node.trigger_deactivate()
        node.trigger_activate()
        site.place()
        site.wait_for_node(node)
        _, people = site.run(8)
        assert people.ids.tolist() == [2]


@pytest.mark.parametrize(
    ('skeletons', 'joints', 'reason'),
    [
        (0, 0, 'joint_names is empty'),
        (101, 17, '101 people; at most 100 are fused'),
        (60, 100, '6000 joints of all people; at most 5000 are fused'),
    ],
)
def test_messages_that_cannot_be_fused_are_explained(skeletons, joints, reason):
    with fusion_node(Room.random(2, 1, 4)) as (node, site):
        one = Skeleton(
            positions=[Point()] * joints,
            image_points=[ImagePoint()] * joints,
            confidences=[1.0] * joints,
            in_view=[True] * joints,
        )
        names = [f'joint{i}' for i in range(joints)]
        message = SkeletonArray(joint_names=names, skeletons=[one] * skeletons)
        site.skeletons['camera0'].publish(message)
        wait_for(lambda: reason in node._problems['camera0'])
        site.run(3)
        assert node._problems['camera0'] == ''


def test_a_message_with_an_invalid_person_is_explained():
    with fusion_node(Room.random(2, 1, 4)) as (node, site):
        site.run(3)
        one = Skeleton(
            positions=[Point(x=float('nan'))],
            image_points=[ImagePoint()],
            confidences=[1.0],
            in_view=[True],
        )
        site.skeletons['camera0'].publish(SkeletonArray(joint_names=['nose'], skeletons=[one]))
        wait_for(lambda: '1 of the people are not valid' in node._problems['camera0'])
        site.run(3)
        assert node._drops.counts() == {'malformed skeletons': 1}


def test_malformed_skeletons_are_counted_and_the_node_continues():
    with fusion_node(Room.random(2, 1, 4)) as (node, site):
        site.run(5)
        malformed = SkeletonArray(joint_names=['a', 'b'], joint_edges=[0, 9])
        site.skeletons['camera0'].publish(malformed)
        wait_for(lambda: node._drops.counts().get('malformed skeletons'))
        site.run(3)
        before = len(site.fused)
        answer, _ = call(site, Trigger, 'fusion/reset')
        assert answer.success
        _, people = site.run(5)
        assert len(site.fused) > before
        assert people.ids.tolist() == [2]


@pytest.mark.parametrize(
    ('parameters', 'message'),
    [
        ({'cameras': ['a', 'a']}, 'each camera exactly once'),
        ({'max_lost': -1.0}, 'max_lost'),
        ({'fixed_frame': ''}, 'fixed_frame'),
        ({'tf': 'some'}, "tf is 'some'"),
    ],
)
def test_invalid_parameters_are_rejected(parameters, message):
    rclpy.init()
    try:
        overrides = [Parameter(name, value=value) for name, value in parameters.items()]
        with pytest.raises(ValueError, match=message):
            FusionNode(parameter_overrides=overrides)
    finally:
        rclpy.shutdown()
