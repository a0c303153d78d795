"""Simulated people of different statures in front of a camera above a floor."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from metrabs_ros.camera import Camera, intrinsics_from_fov
from metrabs_ros.people import UNKNOWN_ID, People, in_view
from metrabs_ros.placement.absolute import absolute_points, full_perspective
from metrabs_ros.placement.depth_image import DepthImage
from metrabs_ros.placement.ground_plane import ANKLE_HEIGHT_MM, GroundPlane
from metrabs_ros.skeletons.conventions import COCO_17

IMAGE_SHAPE = (1080, 1920)
NETWORK_STATURE_MM = 1700.0
FLATTENING = 0.92
"""The network's poses are less deep than the people."""
POINT_NOISE, SHAPE_NOISE_MM = 0.03, 30.0
"""Noise of image points as a share of the person's height, which is 25 pixels of 830."""
NOISE_TIME_S = 0.1
"""Correlation time of the noise."""
FOOT_LENGTH, STEP_HEIGHT_MM = 0.15, 170.0
JOINTS = {name: i for i, name in enumerate(COCO_17.joint_names)}

Posture = Callable[[float, float], np.ndarray]
"""Joints [17, 3] of a person of 1 m at a time and phase; x forward, y left, z up."""


def body(
    hip_height: float,
    ankles: tuple[tuple[float, float], tuple[float, float]],
    lean: float = 0.05,
    knee_bulge: float = 0.0,
) -> np.ndarray:
    """Return a body of 1 m from the height of its hips and its ankles (forward, height)."""
    joints = np.zeros((17, 3))

    def put(part: str, forward: float, aside: float, height: float) -> None:
        joints[JOINTS[f'left_{part}']] = forward, aside, height
        joints[JOINTS[f'right_{part}']] = forward, -aside, height

    trunk, top = 0.288, hip_height + 0.288 * np.cos(lean)
    ahead = trunk * np.sin(lean)
    put('shoulder', ahead, 0.115, top)
    put('elbow', ahead + 0.02, 0.14, top - 0.186)
    put('wrist', ahead + 0.07, 0.14, top - 0.32)
    put('hip', 0, 0.06, hip_height)
    put('ear', ahead + 0.02, 0.045, top + 0.115)
    put('eye', ahead + 0.06, 0.02, top + 0.12)
    joints[JOINTS['nose']] = ahead + 0.075, 0, top + 0.105
    thigh, shank = 0.245, 0.246
    for side, (forward, height), aside in zip(('left', 'right'), ankles, (0.06, -0.06)):
        ankle = np.array([forward, aside, height])
        hip = joints[JOINTS[f'{side}_hip']]
        between = ankle - hip
        length = min(np.linalg.norm(between), thigh + shank - 1e-6)
        along = (thigh**2 - shank**2 + length**2) / (2 * length)
        bend = np.sqrt(max(thigh**2 - along**2, 0))
        direction = between / np.linalg.norm(between)
        forwards = np.array([1.0, 0, 0]) - direction[0] * direction
        norm = np.linalg.norm(forwards)
        forwards = forwards / norm if norm > 1e-6 else np.array([0, 0, 1.0])
        joints[JOINTS[f'{side}_knee']] = hip + along * direction + bend * forwards
        joints[JOINTS[f'{side}_ankle']] = hip + length * direction
    return joints


ANKLE = ANKLE_HEIGHT_MM / NETWORK_STATURE_MM


def stand(time_s: float, phase: float) -> np.ndarray:
    """Stand, and sway a little."""
    sway = 0.01 * np.sin(2 * np.pi * 0.3 * time_s + phase)
    return body(0.53, ((0, ANKLE), (0.02, ANKLE)), 0.05 + sway)


def walk(time_s: float, phase: float) -> np.ndarray:
    """Walk on the spot with 1.8 steps per second; each foot is on the floor for 60 % of time."""
    ankles = []
    for offset in (0.0, 0.5):
        cycle = (0.9 * time_s + phase / (2 * np.pi) + offset) % 1
        if cycle < 0.6:
            ankles.append((0.2 - 0.4 * cycle / 0.6, ANKLE))
        else:
            swing = (cycle - 0.6) / 0.4
            ankles.append((-0.2 + 0.4 * swing, ANKLE + 0.06 * np.sin(np.pi * swing)))
    return body(0.515, (ankles[0], ankles[1]))


def sit(time_s: float, phase: float) -> np.ndarray:
    """Sit on a chair with the feet on the floor."""
    return body(0.29, ((0.24, ANKLE), (0.27, ANKLE)), 0.1 + 0.02 * np.sin(time_s + phase))


def crouch(time_s: float, phase: float) -> np.ndarray:
    """Crouch on both feet."""
    return body(0.22, ((0.02, ANKLE), (0.1, ANKLE)), 0.5 + 0.02 * np.sin(time_s + phase))


def climb(time_s: float, phase: float) -> np.ndarray:
    """Walk up three steps and down again, and stay on each level for a second."""
    level = abs((time_s + phase) % 6 - 3)
    low, share = int(level), level - int(level)
    heights = [low * STEP_HEIGHT_MM / NETWORK_STATURE_MM] * 2
    for i, start in enumerate((0.5, 0.75)):
        done = np.clip((share - start) / 0.25, 0, 1)
        heights[i] += done * STEP_HEIGHT_MM / NETWORK_STATURE_MM
    return body(0.5 + min(heights), ((0.1, ANKLE + heights[0]), (0, ANKLE + heights[1])))


POSTURES = {'stand': stand, 'walk': walk, 'sit': sit, 'crouch': crouch, 'climb': climb}


@dataclasses.dataclass(frozen=True)
class Scene:
    """One person, and a camera above the floor; lengths in millimetres."""

    posture: Posture
    stature_mm: float
    distance_mm: float
    heading: float
    phase: float
    camera: Camera
    ground: GroundPlane
    aside: float

    @classmethod
    def random(cls, posture: Posture, rng: np.random.Generator) -> Scene:
        """Return a scene within the range that robots meet; the whole person is in view."""
        while True:
            height_mm, tilt = rng.uniform(300, 2000), np.radians(rng.uniform(-10, 40))
            fov = rng.uniform(40, 120)
            camera = Camera(intrinsics_from_fov(fov, IMAGE_SHAPE))
            # Axes of the camera in the ground frame: x right, y down, z forward.
            right = np.array([0, -1.0, 0])
            forward = np.array([np.cos(tilt), 0, -np.sin(tilt)])
            rotation = np.stack([right, np.cross(forward, right), forward], axis=1)
            ground = GroundPlane.from_transform(rotation, np.array([0, 0, height_mm]))
            scene = cls(
                posture,
                rng.uniform(1100, 2000),
                rng.uniform(1500, 12000),
                rng.uniform(0, 2 * np.pi),
                rng.uniform(0, 2 * np.pi),
                dataclasses.replace(camera, extrinsic_matrix=_inverse(rotation, height_mm)),
                ground,
                rng.uniform(-0.3, 0.3),
            )
            joints_mm = scene.joints_mm(0.0)
            points_px = camera.project(joints_mm)
            if in_view(joints_mm, points_px, IMAGE_SHAPE).all():
                return scene

    def joints_mm(self, time_s: float) -> np.ndarray:
        """Return the true joints [17, 3], camera frame."""
        joints = self.posture(time_s, self.phase)
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        place_mm = np.array([self.distance_mm, self.aside * self.distance_mm, 0])
        joints_mm = self.stature_mm * joints @ turn.T + place_mm
        result: np.ndarray = self.camera.from_world(joints_mm)
        return result


def _inverse(rotation: np.ndarray, height_mm: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation.T
    matrix[:3, 3] = -rotation.T @ np.array([0, 0, height_mm])
    return matrix


def _rotation_to(point_mm: np.ndarray) -> np.ndarray:
    """Return a rotation [3, 3] into a camera that looks at a point."""
    forward = point_mm / np.linalg.norm(point_mm)
    right = np.cross([0, 1.0, 0], forward)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(forward, right), forward])


class Network:
    """Simulated network: flattened poses of average size, and noisy image points."""

    def __init__(self, rng: np.random.Generator, rate_hz: float, noise: float = 1.0) -> None:
        self._rng = rng
        self._decay = np.exp(-1 / (rate_hz * NOISE_TIME_S))
        self._noise = noise
        self._state = rng.normal(size=(17, 5))

    def __call__(self, scene: Scene, time_s: float) -> People:
        """Return the person as the pose estimator detects it, camera frame."""
        true_mm = scene.joints_mm(time_s)
        fresh = self._rng.normal(size=(17, 5))
        self._state = self._decay * self._state + np.sqrt(1 - self._decay**2) * fresh
        hips_mm = true_mm[[11, 12]].mean(axis=0)
        relative_mm = (true_mm - hips_mm) * NETWORK_STATURE_MM / scene.stature_mm
        sight = hips_mm / np.linalg.norm(hips_mm)
        relative_mm -= (1 - FLATTENING) * (relative_mm @ sight)[:, None] * sight
        relative_mm += self._noise * SHAPE_NOISE_MM / np.sqrt(3) * self._state[:, :3]
        points_px = scene.camera.project(true_mm)
        noise_px = self._noise * POINT_NOISE * np.ptp(points_px[:, 1])
        points_px += noise_px / np.sqrt(2) * self._state[:, 3:]
        rays = np.linalg.solve(
            scene.camera.intrinsic_matrix, np.concatenate([points_px, np.ones((17, 1))], 1).T
        ).T
        # The crop's camera looks at the person.
        to_crop = _rotation_to(hips_mm)
        crop_rays = rays @ to_crop.T
        points = (crop_rays[:, :2] / crop_rays[:, 2:])[None]
        relative_mm = (relative_mm @ to_crop.T)[None]
        inside = np.ones((1, 17), bool)
        place_mm = full_perspective(points, relative_mm, inside)
        poses_mm = absolute_points(points, relative_mm, place_mm, inside) @ to_crop
        poses_px = scene.camera.project(poses_mm)
        low, high = poses_px.min(axis=1), poses_px.max(axis=1)
        visible = in_view(poses_mm, poses_px, IMAGE_SHAPE)
        return People(
            COCO_17,
            np.concatenate([low, high - low], axis=1),
            np.full(1, 0.9),
            poses_mm,
            poses_px,
            np.where(visible, 0.9, 0.2),
            visible,
            np.full(1, UNKNOWN_ID),
        )


SURFACES = (
    ('hip', 'knee', 85.0, 60.0),
    ('knee', 'ankle', 58.0, 45.0),
    ('shoulder', 'elbow', 50.0, 45.0),
    ('elbow', 'wrist', 42.0, 32.0),
)
"""Limbs of the simulated body, and their radii."""


def render_depth(
    scene: Scene, time_s: float, rng: np.random.Generator, size: tuple[int, int] = (360, 640)
) -> DepthImage:
    """Return a depth image with noise, holes, flying pixels, a wall and an occluding arm."""
    scale = IMAGE_SHAPE[0] / size[0]
    intrinsics = scene.camera.intrinsic_matrix.copy()
    intrinsics[:2] /= scale
    camera = Camera(intrinsics)
    joints_mm = scene.joints_mm(time_s)
    thickness = scene.stature_mm / NETWORK_STATURE_MM
    depth_mm = np.full(size, 1.0 + joints_mm[:, 2].max() + rng.uniform(300, 2500))
    for centre_mm, radius_mm in _spheres(joints_mm):
        _draw_sphere(depth_mm, camera, centre_mm, thickness * radius_mm)
    # An arm in front of the trunk.
    chest_mm = joints_mm[[5, 6, 11, 12]].mean(axis=0)
    for share in np.linspace(-1, 1, 12):
        offset_mm = np.array([300 * share, 60 * share, -250.0])
        _draw_sphere(depth_mm, camera, chest_mm + thickness * offset_mm, 45 * thickness)
    depth_mm += rng.normal(size=size) * (5 + 0.01 * depth_mm)
    flying = rng.random(size) < 0.02
    depth_mm[flying] *= rng.uniform(0.5, 1.5, flying.sum())
    depth_mm[rng.random(size) < 0.2] = 0
    return DepthImage(np.clip(depth_mm, 0, 65535).astype(np.uint16), camera)


def _spheres(joints_mm: np.ndarray) -> Iterator[tuple[np.ndarray, float]]:
    for upper, lower, start_mm, end_mm in SURFACES:
        for side in ('left', 'right'):
            a, b = (joints_mm[JOINTS[f'{side}_{part}']] for part in (upper, lower))
            for share in np.linspace(0, 1, 15):
                yield a + share * (b - a), start_mm + share * (end_mm - start_mm)
    corners = [joints_mm[JOINTS[name]] for name in ('left_shoulder', 'right_shoulder')]
    corners += [joints_mm[JOINTS[name]] for name in ('left_hip', 'right_hip')]
    for down in np.linspace(0, 1, 10):
        left = corners[0] + down * (corners[2] - corners[0])
        right = corners[1] + down * (corners[3] - corners[1])
        for across in np.linspace(0, 1, 6):
            yield left + across * (right - left), 100.0
    yield joints_mm[JOINTS['nose']] * 0.5 + joints_mm[[3, 4]].mean(axis=0) * 0.5, 95.0


def _draw_sphere(
    depth_mm: np.ndarray, camera: Camera, centre_mm: np.ndarray, radius_mm: float
) -> None:
    """Draw the near side of a sphere into a depth image [H, W]."""
    if centre_mm[2] < 2 * radius_mm:
        return
    point_px = camera.project(centre_mm[None])[0]
    radius_px = camera.intrinsic_matrix[0, 0] * radius_mm / centre_mm[2]
    low = np.maximum(np.floor(point_px - radius_px), 0).astype(int)
    high = np.minimum(np.ceil(point_px + radius_px) + 1, depth_mm.shape[::-1]).astype(int)
    if (high <= low).any():
        return
    x, y = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
    away = ((x - point_px[0]) ** 2 + (y - point_px[1]) ** 2) / radius_px**2
    near_mm = centre_mm[2] - radius_mm * np.sqrt(np.maximum(1 - away, 0))
    part = depth_mm[low[1] : high[1], low[0] : high[0]]
    np.minimum(part, np.where(away < 1, near_mm, np.inf), out=part)
