"""Over real DDS: an image and its camera_info go in, people come out, and nothing stops it."""

from __future__ import annotations

import array
import threading
import time

import numpy as np
import pytest
import rclpy
import tf2_ros
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from visualization_msgs.msg import MarkerArray

from metrabs_ros.msg import SkeletonArray
from metrabs_ros.node.pose_node import PoseNode

PATIENCE_S = 10.0
FOCAL_PX = 900.0


class Robot(Node):
    """A camera and everybody who wants to know about people."""

    def __init__(self):
        super().__init__('robot')
        self.images = self.create_publisher(Image, 'image', qos_profile_sensor_data)
        self.infos = self.create_publisher(CameraInfo, 'camera_info', qos_profile_sensor_data)
        self.skeletons, self.markers, self.diagnostics = [], [], []
        self.create_subscription(SkeletonArray, 'pose/skeletons', self.skeletons.append, 50)
        self.create_subscription(MarkerArray, 'pose/markers', self.markers.append, 50)
        self.create_subscription(DiagnosticArray, '/diagnostics', self.diagnostics.append, 50)
        self.transforms = tf2_ros.Buffer()
        self.listener = tf2_ros.TransformListener(self.transforms, self)
        self.sent = 0

    def send(self, image, **changes):
        """Publish an image and its camera_info; return the stamp."""
        self.sent += 1
        message, info = Image(), CameraInfo()
        message.header.stamp.sec = self.sent
        message.header.frame_id = info.header.frame_id = 'camera_optical_frame'
        message.height, message.width = info.height, info.width = image.shape[:2]
        message.encoding, message.step = 'rgb8', 3 * image.shape[1]
        message.data = array.array('B', image.tobytes())
        info.k = [FOCAL_PX, 0, image.shape[1] / 2, 0, FOCAL_PX, image.shape[0] / 2, 0, 0, 1]
        info.distortion_model, info.d = 'plumb_bob', [0.0] * 5
        for name, value in changes.items():
            setattr(info if name in ('k', 'd', 'distortion_model') else message, name, value)
        info.header.stamp = message.header.stamp
        self.images.publish(message)
        self.infos.publish(info)
        return message.header.stamp

    def answer_to(self, stamp):
        """Wait for the skeletons of an image."""
        return wait_for(lambda: [s for s in self.skeletons if s.header.stamp == stamp])[0]

    def dropped(self):
        """Return the drops by cause that the diagnostics tell of."""
        values = self.diagnostics[-1].status[0].values if self.diagnostics else []
        return {v.key: int(v.value) for v in values if v.key.startswith('dropped: ')}


def wait_for(condition):
    deadline_s = time.monotonic() + PATIENCE_S
    while not (result := condition()):
        assert time.monotonic() < deadline_s, 'waited in vain'
        time.sleep(0.01)
    return result


@pytest.fixture(scope='module')
def pose():
    """Return the node under test and a robot around it, spinning."""
    rclpy.init()
    node, robot = PoseNode(), Robot()
    executors = [SingleThreadedExecutor(), SingleThreadedExecutor()]
    for executor, spun in zip(executors, (node, robot)):
        executor.add_node(spun)
    threads = [threading.Thread(target=executor.spin) for executor in executors]
    for thread in threads:
        thread.start()
    wait_for(lambda: robot.images.get_subscription_count() and robot.count_publishers('/tf'))
    wait_for(lambda: robot.count_publishers('/pose/skeletons'))
    yield node, robot
    for executor in executors:
        executor.shutdown()
    for thread in threads:
        thread.join()
    node.stop()
    robot.listener.unregister()
    for spun in (node, robot):
        spun.destroy_node()
    rclpy.shutdown()


def test_people_come_out_in_metres_with_the_images_stamp_and_frame(pose, street):
    _, robot = pose
    answer = robot.answer_to(robot.send(street))
    assert answer.header.frame_id == 'camera_optical_frame'
    assert answer.skeleton_name == 'blazepose_33'
    assert len(answer.skeletons) >= 5
    for skeleton in answer.skeletons:
        depths_m = [position.z for position in skeleton.positions]
        assert 10 < min(depths_m) <= max(depths_m) < 40
        assert len(skeleton.positions) == len(answer.joint_names) == 33


def test_every_person_has_a_frame_and_markers(pose, street):
    _, robot = pose
    answer = robot.answer_to(robot.send(street))
    wait_for(lambda: any(m.header.stamp == answer.header.stamp for m in robot.markers[-1].markers))
    for skeleton in answer.skeletons:
        name = f'person_{skeleton.id}'
        wait_for(
            lambda name=name: robot.transforms.can_transform(
                'camera_optical_frame', name, answer.header.stamp
            )
        )
        transform = robot.transforms.lookup_transform(
            'camera_optical_frame', name, answer.header.stamp
        )
        hips = [skeleton.positions[i] for i in (23, 24)]
        place = transform.transform.translation
        assert (place.x, place.y, place.z) == pytest.approx(
            tuple(np.mean([(p.x, p.y, p.z) for p in hips], axis=0)), abs=1e-6
        )
        assert any(marker.id == skeleton.id for marker in robot.markers[-1].markers)


def test_ids_stay_from_frame_to_frame(pose, street):
    _, robot = pose
    first = {s.id for s in robot.answer_to(robot.send(street)).skeletons}
    again = {s.id for s in robot.answer_to(robot.send(street)).skeletons}
    assert len(first & again) >= 5


@pytest.mark.parametrize(
    ('changes', 'cause'),
    [
        ({'k': [0.0] * 9}, 'camera not calibrated'),
        ({'encoding': 'no_such_8'}, 'image encoding no_such_8'),
        ({'data': array.array('B', bytes(10))}, 'image data'),
        ({'k': [np.nan] * 9}, 'camera_info'),
        ({'distortion_model': 'no_such'}, 'lens model'),
        ({'height': 0}, 'image size'),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_bad_frames_are_counted_and_the_node_lives_on(pose, street, changes, cause):
    _, robot = pose
    before = robot.dropped().get(f'dropped: {cause}', 0)
    robot.send(street, **changes)
    wait_for(lambda: robot.dropped().get(f'dropped: {cause}', 0) == before + 1)
    assert robot.answer_to(robot.send(street)).skeletons


def test_an_image_of_another_size_than_its_camera_info_is_dropped(pose, street):
    node, robot = pose
    data = array.array('B', street[:500].tobytes())
    before = node.drops.counts().get('camera_info size', 0)
    robot.send(street, height=500, data=data)
    wait_for(lambda: node.drops.counts().get('camera_info size', 0) == before + 1)


def test_while_a_frame_is_worked_on_only_the_newest_waits(pose, street):
    node, robot = pose
    robot.answer_to(robot.send(street))
    before = node.drops.counts().get('newer frame', 0)
    stamps = [robot.send(street) for _ in range(12)]
    robot.answer_to(stamps[-1])
    answered = [s for s in robot.skeletons if s.header.stamp in stamps]
    lost = node.drops.counts()['newer frame'] - before
    assert lost > 0
    # The transport may lose a best-effort image on its own.
    assert len(answered) + lost <= 12
    order = [s.header.stamp.sec for s in answered]
    assert order == sorted(order)


def test_images_without_camera_info_are_told_of(pose, street):
    _, robot = pose
    message = Image(height=1, width=1, step=3, encoding='rgb8')
    message.data = array.array('B', bytes(3))

    def send_and_look():
        robot.sent += 1
        message.header.stamp.sec = robot.sent
        robot.images.publish(message)
        return 'without a camera_info' in robot.diagnostics[-1].status[0].message

    wait_for(send_and_look)


def test_an_empty_scene_publishes_an_empty_message(pose):
    _, robot = pose
    answer = robot.answer_to(robot.send(np.full((200, 300, 3), 90, np.uint8)))
    assert list(answer.skeletons) == []
    assert len(answer.joint_names) == 33
