"""The view in a browser shows people where they are."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading

import numpy as np
import pytest
import rclpy
from browser import free_ports, page_at, wait_for_picture
from known_people import KnownPeople
from progress import output_while_it_progresses
from rclpy.executors import SingleThreadedExecutor
from robots import pose_node, transform
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from test_people import people_at

from metrabs_ros.drawing import color_of
from metrabs_ros.messages.people import to_message
from metrabs_ros.node.message_types import TYPES
from metrabs_ros.node.view_node import ViewNode
from metrabs_ros.view.scene import Scene

LEFT_MM, RIGHT_MM = (-1000, 0, 5000), (1000, 0, 5000)
GREY = np.full((240, 320, 3), 128, np.uint8)
SPACE = (slice(80, 640), slice(0, 950))
"""Where on the page the space with the people is."""
HUE_TOLERANCE = 0.05


def pixels_of(picture, person_id):
    """Return where a picture has a person's colour, whatever the light, [P, 2], x and y."""
    colors = picture.astype(float) / 255
    brightness = colors.max(axis=-1)
    wanted = np.array(color_of(person_id))
    shade = colors / np.maximum(brightness, 1e-9)[..., None]
    near = np.abs(shade - wanted / wanted.max()).max(axis=-1) < HUE_TOLERANCE
    rows, columns = np.nonzero(near & (brightness > 0.5))
    return np.stack([columns, rows], axis=-1)


def both_people(picture):
    """Return where both people are in the space, or None as long as they are not."""
    found = [pixels_of(picture[SPACE], person_id) for person_id in (1, 2)]
    return found if min(len(pixels) for pixels in found) > 100 else None


def test_skeletons_stand_in_the_space_where_they_are(tmp_path):
    with pose_node(KnownPeople(LEFT_MM, RIGHT_MM)) as (_, robot):
        scene = Scene([''], is_live=True)
        address = scene.serve(*free_ports(2))
        view = ViewNode(scene, [''], compressed=False)
        executor = SingleThreadedExecutor()
        executor.add_node(view)
        spinning = threading.Thread(target=executor.spin)
        spinning.start()
        going_on = threading.Event()
        sending = threading.Thread(target=send_until, args=(robot, going_on))
        sending.start()
        try:
            with page_at(address) as page:
                left, right = wait_for_picture(page, both_people, tmp_path / 'page.png')
        finally:
            going_on.set()
            sending.join()
            executor.shutdown()
            spinning.join()
            view.destroy_node()
    # As the camera sees them: one beside the other, each taller than wide.
    assert np.median(left[:, 0]) < np.median(right[:, 0]) - 30
    assert abs(np.median(left[:, 1]) - np.median(right[:, 1])) < 40
    for pixels in (left, right):
        width, height = np.ptp(np.percentile(pixels, (5, 95), axis=0), axis=0)
        assert height > width


class Shown:
    """A scene that only notes what is shown."""

    def __init__(self):
        self.people = {}
        self.z_up = []
        self.said = []

    def turn_up(self, z_up):
        self.z_up.append(z_up)

    def show_people(self, stamp_s, name, people):
        self.people[name] = people

    def say(self, text):
        self.said.append(text)

    def show_image(self, *arguments):
        pass

    show_camera = show_frames = plot = show_image


@pytest.fixture
def view():
    """Return a function that makes the node, with a scene that only notes."""
    rclpy.init()
    nodes = []

    def make(*cameras):
        nodes.append(ViewNode(Shown(), cameras, compressed=False))
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()
    rclpy.shutdown()


def skeletons_in(frame_id):
    return to_message(people_at((0, 0, 3000)), Header(frame_id=frame_id), TYPES)


def test_the_people_of_several_cameras_are_shown_in_the_frame_of_the_first(view):
    node = view('front', 'rear')
    behind = transform('front_frame', 'rear_frame', (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, -1.0))
    node._buffer.set_transform_static(behind, 'test')
    front, rear = node._views
    front._take_people(skeletons_in('front_frame'))
    rear._take_people(skeletons_in('rear_frame'))
    shown = node.scene.people
    np.testing.assert_allclose(shown['front'].positions_mm, [[0, 0, 3000]], atol=1e-3)
    np.testing.assert_allclose(shown['rear'].positions_mm, [[0, 0, -4000]], atol=1e-3)
    rear._take_people(skeletons_in('nobody_knows'))
    assert len(node.scene.people['rear']) == 0


def test_people_in_another_frame_than_the_images_have_z_up(view):
    node = view('')
    image = Image()
    image.header.frame_id = 'camera'
    node._views[0]._keep_image(image)
    node._views[0]._take_people(skeletons_in('camera'))
    node._views[0]._take_people(skeletons_in('map'))
    assert node.scene.z_up == [False, True]


def test_skeletons_that_make_no_sense_do_no_harm(view):
    node = view('')
    message = skeletons_in('camera')
    message.skeletons[0].positions = message.skeletons[0].positions[:5]
    node._views[0]._take_people(message)
    assert node.scene.people == {}


def test_it_says_what_does_not_come_in(view):
    node = view('')
    node._check()
    assert node.scene.said[-1].startswith('nothing comes in on /image and /pose/skeletons')
    node._views[0]._keep_image(Image())
    node._check()
    assert node.scene.said[-1].startswith('images come in, but no skeletons')


def send_until(robot, event):
    """Send images until an event."""
    while not event.wait(0.2):
        robot.send(GREY)


def test_a_taken_port_says_so():
    with socket.socket() as taken:
        taken.bind(('0.0.0.0', 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f'port {port} is taken'):
            Scene(['']).serve(port, free_ports(1)[0])


def test_the_process_says_its_address_and_ends_at_once():
    web, data = free_ports(2)
    process = subprocess.Popen(
        [
            *(sys.executable, '-m', 'metrabs_ros.cli', 'view', '--camera', '/front'),
            *('--web-port', str(web), '--data-port', str(data)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        line = next(line for line in process.stdout if 'view: open' in line)
        assert f':{web}/?url=' in line
        assert '/front/image_raw' in line
        process.send_signal(signal.SIGINT)
        rest, _ = output_while_it_progresses(process)
    finally:
        process.kill()
    assert process.returncode == 0
    assert 'Traceback' not in rest
