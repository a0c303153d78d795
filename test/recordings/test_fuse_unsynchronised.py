"""Fusion of bags whose cameras have other rates and stamps, or move."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from known_people import KnownPeople
from recorded_bags import START_NS, people_in, write_bag
from recorded_transforms import recorded_tree, transform_message
from rig_files import camera_to_world
from simulated_rooms import looking_at
from strategies import standing_person

from metrabs_ros.camera import Camera
from metrabs_ros.conversions.transforms import quaternions
from metrabs_ros.pose_estimator import Poses
from metrabs_ros.recordings.annotate import annotate
from metrabs_ros.recordings.options import AnnotateOptions
from metrabs_ros.recordings.typestore import CAMERA_INFO, IMAGE, header_at, message_factory

SHAPE, FOCAL_PX = (240, 320), 450.0
INTRINSIC = np.array([[FOCAL_PX, 0, 160], [0, FOCAL_PX, 120], [0, 0, 1]])
LENGTH_S = 1.5
TRANSFORM_RATE_HZ = 40.0
SPEED_MM_S = 1200.0
SETTLED_S = 0.5
"""Time after which the velocities of the people are known."""
MAX_ERROR_MM = 2.0
"""If the differences of the stamps in a set were ignored, the person would be 8 mm off."""
CAMERA_STEP, FRAME_STEP = 60, 5
"""Differences of the grey levels that tell the model which camera and which frame an image is."""


@dataclasses.dataclass(frozen=True)
class Rig:
    """A camera that turns and moves with constant velocities, in metres and radians."""

    place_m: tuple[float, float, float]
    rate_hz: float
    offset_s: float
    velocity_m_s: tuple[float, float, float] = (0.0, 0.0, 0.0)
    turn_rad_s: float = 0.0

    def camera(self, time_s):
        place_m = np.array(self.place_m) + time_s * np.array(self.velocity_m_s)
        target_m = np.array([np.sin(self.turn_rad_s * time_s), 0, 1.0])
        extrinsic = looking_at(place_m, target_m).extrinsic_matrix
        return Camera(INTRINSIC, extrinsic_matrix=extrinsic, world_up_vector=(0, 0, 1))

    def time_s(self, frame):
        return self.offset_s + frame / self.rate_hz


STILL = {
    'left': Rig((4, -3, 1.6), 30.0, 0.0),
    'right': Rig((4.5, 3, 2), 15.0, 0.012),
    'rear': Rig((-5, 1, 1.8), 10.0, 0.031),
}
MOVING = {
    **STILL,
    'rear': Rig((-5, 1, 1.8), 10.0, 0.031, velocity_m_s=(0.3, -0.8, 0), turn_rad_s=0.2),
}


def hips_mm(time_s):
    """Return the hips of the people in the world: one walks, one stands."""
    return np.array([(SPEED_MM_S * (time_s - LENGTH_S / 2), -300, 900), (-200, 600, 900)])


class PeopleAtTheirTimes(KnownPeople):
    """Returns the people at the time of an image, as its camera sees them from its place."""

    def __init__(self, rigs):
        super().__init__()
        self.rigs = list(rigs.values())

    def poses_of(self, view, options):
        top, bottom = (int(np.median(half)) for half in np.split(view.image, 2))
        rig = self.rigs[round((top - 30) / CAMERA_STEP)]
        time_s = rig.time_s(round(bottom / FRAME_STEP))
        body_mm = standing_person(np.array([0, 0, 1.0]), facing=0.5)
        poses_mm = rig.camera(time_s).from_world(hips_mm(time_s)[:, None] + body_mm)
        points_px = view.camera.project(poses_mm)
        low, high = points_px.min(axis=1), points_px.max(axis=1)
        boxes_px = np.concatenate([low, high - low], axis=1)
        return Poses(boxes_px, np.array([0.9, 0.8]), poses_mm[:, None], points_px[:, None])


def transform_of(name, rig, time_s):
    pose = camera_to_world(rig.camera(time_s))
    quaternion = quaternions(pose[None, :3, :3])[0]
    time_ns = round(time_s * 1e9)
    own = transform_message('map', f'{name}_optical', START_NS + time_ns, pose[:3, 3], quaternion)
    return recorded_tree('/tf', time_ns, own)


def messages_of(index, name, rig):
    """Return the images of a camera, its calibration, and its poses."""
    for i in range(int((LENGTH_S + 0.1) * TRANSFORM_RATE_HZ)):
        yield transform_of(name, rig, i / TRANSFORM_RATE_HZ)
    height, width = SHAPE
    for i in range(int(LENGTH_S * rig.rate_hz)):
        time_ns = START_NS + round(1e9 * rig.time_s(i))
        header = header_at(time_ns, f'{name}_optical')
        image = np.full((height, width, 3), 30 + CAMERA_STEP * index, np.uint8)
        image[height // 2 :] = FRAME_STEP * i
        info = message_factory(CAMERA_INFO)(
            header=header,
            height=height,
            width=width,
            distortion_model='plumb_bob',
            d=[0.0] * 5,
            k=INTRINSIC.ravel(),
        )
        content = message_factory(IMAGE)(
            header=header,
            height=height,
            width=width,
            encoding='bgr8',
            step=3 * width,
            data=image.reshape(-1),
        )
        yield f'/{name}/camera_info', CAMERA_INFO, time_ns, info
        yield f'/{name}/image_raw', IMAGE, time_ns, content


@pytest.mark.parametrize('rigs', [STILL, MOVING], ids=['still', 'moving'])
def test_people_are_where_they_were_at_the_stamps_of_the_fused_messages(tmp_path, rigs):
    items = [
        item for k, (name, rig) in enumerate(rigs.items()) for item in messages_of(k, name, rig)
    ]
    items.sort(key=lambda item: item[2])
    bag, warnings = write_bag(tmp_path / 'bag', [], (), extra=items), []
    summary = annotate(
        bag,
        tmp_path / 'out',
        AnnotateOptions(fuse=True),
        PeopleAtTheirTimes(rigs),
        warnings.append,
    )
    assert warnings == []
    assert summary.fused_people == 2
    fused = people_in(tmp_path / 'out', '/fusion/skeletons')
    stamps_ns = [stamp_ns for stamp_ns, _ in fused]
    assert stamps_ns == sorted(set(stamps_ns))
    # As often as the fastest camera.
    assert len(fused) >= LENGTH_S * 30 - 2
    for stamp_ns, people in fused:
        time_s = (stamp_ns - START_NS) / 1e9
        if time_s > SETTLED_S:
            off_mm = np.linalg.norm(hips_mm(time_s)[:, None] - people.positions_mm, axis=-1)
            assert len(people) == 2
            assert off_mm.min(axis=0).max() < MAX_ERROR_MM
