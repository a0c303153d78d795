"""Simulated rooms with known truth: walking people, several cameras, and scores of the fusion."""

from __future__ import annotations

import dataclasses
import functools
import heapq
from collections.abc import Iterator

import numpy as np
from scaled_people import walk
from scenes import Path, walk_between

from metrabs_ros.camera import Camera
from metrabs_ros.fusion.frame_sets import FrameSets
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.fusion.people_fusion import PeopleFusion
from metrabs_ros.people import inside_image
from metrabs_ros.skeletons.conventions import COCO_17

IMAGE_SHAPE = (720, 1280)
FOCAL_PX = 800.0
POINT_NOISE = 25 / 830
"""Noise of image points as a share of the person's height in the image."""
SHAPE_NOISE_MM = 30.0
NOISE_TIME_S = 0.1
"""Correlation time of the noise."""
SCALE_NOISE, SCALE_TIME_S = 0.08, 3.0
"""Error of the monocular distances as a share, and its correlation time."""
MISS_RATE, FALSE_RATE, SWAP_RATE = 0.05, 0.03, 0.02
"""Probabilities of missed people, false people and exchanged sides, per person and image."""
MAX_OFFSET_S = 0.05
STATURES_MM = (1500.0, 1950.0)
OCCLUSION_MM = 250.0
"""People are hidden if a nearer person is closer than this to the line of sight."""
MAX_MATCH_MM = 500.0
MAX_DUPLICATE_MM = 800.0
"""Unmatched people are duplicates if a matched person is closer than this."""
MIN_JOINTS_IN_VIEW = 6


@dataclasses.dataclass(frozen=True)
class Room:
    """
    A room with walking people and cameras; lengths in metres, z up.

    Parameters
    ----------
    cameras
        By name.
    goals_m
        [P, G, 2], where each person walks to, one goal after the other.
    speeds_m_s
        [P].
    """

    cameras: dict[str, Camera]
    goals_m: np.ndarray
    speeds_m_s: np.ndarray
    statures_mm: np.ndarray

    @functools.cached_property
    def _paths(self) -> list[Path]:
        return walk_between(self.goals_m, self.speeds_m_s)

    @classmethod
    def random(cls, cameras: int, people: int, seed: int) -> Room:
        """Return a room of 8 by 6 metres, with cameras on its walls that look at the middle."""
        rng = np.random.default_rng(seed)
        # Two cameras in adjacent corners, not face to face: their rays would be parallel.
        angles = np.pi / 4 + 2 * np.pi * np.arange(cameras) / max(cameras, 4)
        own = {}
        for i, angle in enumerate(angles):
            place = np.array([5.0 * np.cos(angle), 4.0 * np.sin(angle), rng.uniform(2.0, 2.8)])
            own[f'camera{i}'] = looking_at(place, np.array([0, 0, 0.9]))
        goals_m = rng.uniform((-2.5, -1.8), (2.5, 1.8), (people, 60, 2))
        return cls(own, goals_m, rng.uniform(0.8, 1.4, people), rng.uniform(*STATURES_MM, people))

    @classmethod
    def corridor(cls, gap_m: float) -> Room:
        """Return two cameras along a corridor whose views are apart, and a person that paces."""
        half = gap_m / 2 + 2.2
        own = {
            f'camera{i}': looking_at(np.array([x, -4.0, 2.2]), np.array([x, 0, 1.0]))
            for i, x in enumerate((-half, half))
        }
        ends = np.array([(-half, 0.0), (half, 0.0)])
        return cls(own, np.tile(ends, (1, 30, 1)), np.array([1.3]), np.array([1750.0]))

    def people_mm(self, time_s: float) -> np.ndarray:
        """Return the joints [P, 17, 3] of all people, world frame."""
        return np.stack([self._person_mm(p, time_s) for p in range(len(self.goals_m))])

    def _person_mm(self, person: int, time_s: float) -> np.ndarray:
        # The mean over 0.8 s: people slow down and turn at the goals.
        places = np.array([self._paths[person](time_s + d) for d in np.linspace(-0.4, 0.4, 9)])
        place, ahead = places.mean(axis=0), np.diff(places, axis=0)
        walks = np.linalg.norm(ahead, axis=1) > 1e-3
        angle = float(person)
        if walks.any():
            angle = np.unwrap(np.arctan2(ahead[walks, 1], ahead[walks, 0])).mean()
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
        joints_mm = self.statures_mm[person] * walk(time_s, float(person)) @ turn.T
        joints_mm[:, :2] += 1000 * place
        return joints_mm


def looking_at(place_m: np.ndarray, target_m: np.ndarray, roll: float = 0.0) -> Camera:
    """Return a camera at a place that looks at a target, both in metres."""
    forward = target_m - place_m
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    rotation = np.stack([right, np.cross(forward, right), forward])
    cos, sin = np.cos(roll), np.sin(roll)
    rotation = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ rotation
    extrinsic = np.eye(4)
    extrinsic[:3, :3], extrinsic[:3, 3] = rotation, -1000 * rotation @ place_m
    intrinsic = np.array([[FOCAL_PX, 0, 639.5], [0, FOCAL_PX, 359.5], [0, 0, 1]])
    return Camera(intrinsic, extrinsic_matrix=extrinsic, world_up_vector=[0, 0, 1])


class SimulatedCamera:
    """
    A camera with a pose network whose errors are correlated over time.

    Parameters
    ----------
    name, camera
        The camera with its true pose.
    people
        Number of people.
    rate_hz, offset_s
        Rate of the images, and stamp of the first.
    seed
        Of the random numbers.
    noise
        Factor of all noise, misses, false people and swaps.
    """

    def __init__(
        self,
        name: str,
        camera: Camera,
        people: int,
        rate_hz: float,
        offset_s: float,
        seed: int,
        noise: float = 1.0,
    ) -> None:
        self.name, self.camera, self.rate_hz, self.offset_s = name, camera, rate_hz, offset_s
        self.noise = noise
        self._rng = np.random.default_rng(seed)
        self._points = self._rng.normal(size=(people, 17, 5))
        self._scale = self._rng.normal(size=people)

    def observe(self, people_mm: np.ndarray, stamp_s: float) -> tuple[CameraPeople, np.ndarray]:
        """
        Return what the network finds of people [P, 17, 3], and who they are, -1: false people.

        Extrinsics that are reported wrongly can be put into the result by the caller.
        """
        rng, camera = self._rng, self.camera
        self._advance()
        in_camera_mm = camera.from_world(people_mm)
        visible = self.is_visible(people_mm)
        found = np.flatnonzero(visible & (rng.random(len(visible)) >= self.noise * MISS_RATE))
        who = found
        false = rng.random(len(people_mm)) < self.noise * FALSE_RATE
        poses_mm, points_px, inside = [], [], []
        for p in found:
            true_mm = in_camera_mm[p]
            height_px = np.ptp(camera.project(true_mm)[:, 1])
            noise_px = self.noise * POINT_NOISE * height_px / np.sqrt(2)
            px = camera.project(true_mm) + noise_px * self._points[p, :, 3:]
            pose_mm = true_mm + self.noise * SHAPE_NOISE_MM / np.sqrt(3) * self._points[p, :, :3]
            pose_mm = pose_mm * np.exp(self.noise * SCALE_NOISE * self._scale[p])
            if rng.random() < self.noise * SWAP_RATE:
                px, pose_mm = px[COCO_17.mirror], pose_mm[COCO_17.mirror]
            poses_mm.append(pose_mm)
            points_px.append(px)
            inside.append(inside_image(px, IMAGE_SHAPE))
        for p in np.flatnonzero(false):
            # A false person: a body at a random place in the image.
            depth_mm = rng.uniform(2500, 7000)
            middle_mm = np.append(rng.uniform((-0.7, -0.3), (0.7, 0.3)) * depth_mm, depth_mm)
            pose_mm = in_camera_mm[p] - in_camera_mm[p].mean(axis=0) + middle_mm
            poses_mm.append(pose_mm)
            points_px.append(camera.project(pose_mm))
            inside.append(inside_image(points_px[-1], IMAGE_SHAPE))
        who = np.concatenate([found, np.full(false.sum(), -1)])
        order = rng.permutation(len(who))
        poses = np.array(poses_mm).reshape(-1, 17, 3)[order]
        std_mm = 0.02 * 1700 + 0 * poses
        sight = poses / np.maximum(np.linalg.norm(poses, axis=-1, keepdims=True), 1e-9)
        along_mm = SCALE_NOISE * np.linalg.norm(poses, axis=-1, keepdims=True)
        # Standard deviations along the axes of the world.
        world_sight = sight @ camera.extrinsic_matrix[:3, :3]
        std_mm = np.sqrt(std_mm**2 + (along_mm * world_sight) ** 2)
        people = CameraPeople(
            self.name,
            camera,
            stamp_s,
            COCO_17,
            np.array(points_px).reshape(-1, 17, 2)[order],
            np.where(np.array(inside).reshape(-1, 17)[order], 0.9, 0.1),
            camera.to_world(poses),
            std_mm,
            image_shape=IMAGE_SHAPE,
        )
        return people, who[order]

    def is_visible(self, people_mm: np.ndarray) -> np.ndarray:
        """Return which people [P, 17, 3] are in the image and not hidden by others, [P]."""
        in_camera_mm = self.camera.from_world(people_mm)
        in_image = inside_image(self.camera.project(in_camera_mm), IMAGE_SHAPE)
        visible = (in_image & (in_camera_mm[..., 2] > 500)).sum(axis=1) >= MIN_JOINTS_IN_VIEW
        middles = in_camera_mm.mean(axis=1)
        for p, middle in enumerate(middles):
            distance = np.linalg.norm(middle)
            along = middles @ middle / distance
            aside = np.linalg.norm(middles - along[:, None] * middle / distance, axis=1)
            nearer = (along > 300) & (along < distance - 300)
            visible[p] &= not (nearer & (aside < OCCLUSION_MM)).any()
        return visible

    def _advance(self) -> None:
        for name, time_s in (('_points', NOISE_TIME_S), ('_scale', SCALE_TIME_S)):
            decay = np.exp(-1 / (self.rate_hz * time_s))
            state = getattr(self, name)
            fresh = self._rng.normal(size=state.shape)
            setattr(self, name, decay * state + np.sqrt(1 - decay**2) * fresh)


def simulated_cameras(
    room: Room, rate_hz: float, seed: int, noise: float = 1.0
) -> list[SimulatedCamera]:
    """Return the cameras of a room, with random offsets of their stamps."""
    offsets_s = np.random.default_rng(seed).uniform(0, MAX_OFFSET_S, len(room.cameras))
    people = len(room.goals_m)
    return [
        SimulatedCamera(name, camera, people, rate_hz, offset_s, 100 * seed + i, noise)
        for i, ((name, camera), offset_s) in enumerate(zip(room.cameras.items(), offsets_s))
    ]


def frames(
    room: Room, cameras: list[SimulatedCamera], length_s: float
) -> Iterator[tuple[CameraPeople, np.ndarray]]:
    """Yield the frames of all cameras in the order of their stamps, and who the people are."""
    queue = [(camera.offset_s, i, 0) for i, camera in enumerate(cameras)]
    heapq.heapify(queue)
    while queue:
        time_s, i, count = heapq.heappop(queue)
        if time_s >= length_s:
            continue
        camera = cameras[i]
        yield camera.observe(room.people_mm(time_s), 1 + time_s)
        heapq.heappush(queue, (camera.offset_s + (count + 1) / camera.rate_hz, i, count + 1))


@dataclasses.dataclass(frozen=True)
class Score:
    """
    Scores of a fusion.

    Parameters
    ----------
    idf1, switches_per_min
        Of the people that were seen.
    mpjpe_mm, single_mpjpe_mm
        Mean joint errors of fused people, and of the cameras' own poses.
    longest_duplicate_s
        Longest time in which a person was published twice.
    spent_ms
        Processor time per frame set.
    """

    idf1: float
    switches_per_min: float
    mpjpe_mm: float
    single_mpjpe_mm: float
    longest_duplicate_s: float
    spent_ms: float


def score(
    room: Room,
    rate_hz: float,
    length_s: float,
    seed: int = 0,
    noise: float = 1.0,
    max_lost: float = 1.0,
    max_match_mm: float = MAX_MATCH_MM,
) -> Score:
    """
    Fuse the people of a simulated room, and compare them with the truth.

    Parameters
    ----------
    room, rate_hz, length_s, seed, noise, max_lost
        The scene, the cameras and the fusion.
    max_match_mm
        Maximum distance of a fused person from the true one.  Where only one camera sees people,
        their distance is off by the error of the monocular poses.
    """
    import time

    import motmetrics

    cameras = simulated_cameras(room, rate_hz, seed, noise)
    fusion, sets = PeopleFusion(COCO_17, max_lost=max_lost), FrameSets()
    events = motmetrics.MOTAccumulator(auto_id=True)
    errors, single, spent_s, updates = [], [], 0.0, 0
    since: dict[int, float] = {}
    longest_s = 0.0
    for frame, who in frames(room, cameras, length_s):
        real = who >= 0
        true_mm = room.people_mm(frame.stamp_s - 1)
        own_mm = frame.poses3d_mm[real] - true_mm[who[real]]
        single.append(np.linalg.norm(own_mm, axis=-1).ravel())
        for complete in sets.add(frame):
            start_s = time.process_time()
            fused = fusion.update(complete)
            spent_s += time.process_time() - start_s
            updates += 1
            fused = fused.select(fused.seen)
            people_mm = room.people_mm(fused.stamp_s - 1)
            visible = np.any([camera.is_visible(people_mm) for camera in cameras], axis=0)
            truth = np.flatnonzero(visible)
            apart_mm = np.linalg.norm(
                people_mm[truth].mean(axis=1)[:, None] - fused.poses3d_mm.mean(axis=1), axis=-1
            )
            events.update(truth, fused.ids, np.where(apart_mm < max_match_mm, apart_mm, np.nan))
            taken = set()
            for k, person in zip(*np.unravel_index(np.argsort(apart_mm, None), apart_mm.shape)):
                if apart_mm[k, person] < max_match_mm and k not in taken and ~person not in taken:
                    taken |= {int(k), ~int(person)}
                    own_mm = fused.poses3d_mm[person] - people_mm[truth[k]]
                    errors.append(np.linalg.norm(own_mm, axis=-1))
            others = [k for k in range(len(fused)) if ~k not in taken]
            near_mm = np.linalg.norm(
                people_mm.mean(axis=1)[:, None] - fused.poses3d_mm.mean(axis=1), axis=-1
            )
            matched = [truth[k] for k in taken if k >= 0]
            near_mm = near_mm[matched].min(axis=0, initial=np.inf)
            duplicates = {int(fused.ids[k]) for k in others if near_mm[k] < MAX_DUPLICATE_MM}
            since = {i: since.get(i, fused.stamp_s) for i in duplicates}
            for start in since.values():
                longest_s = max(longest_s, fused.stamp_s - start)
    summary = motmetrics.metrics.create().compute(events, metrics=['idf1', 'num_switches'])
    return Score(
        float(summary.idf1.iloc[0]),
        60 * float(summary.num_switches.iloc[0]) / length_s,
        float(np.mean(np.concatenate(errors))) if errors else np.nan,
        float(np.mean(np.concatenate(single))),
        longest_s,
        1000 * spent_s / max(updates, 1),
    )
