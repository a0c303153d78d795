"""Simulated scenes with known truth: walking people, their detections, and tracking scores."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from metrabs_ros.camera import Camera
from metrabs_ros.people import UNKNOWN_ID, People, inside_image
from metrabs_ros.skeletons.conventions import COCO_17, Skeleton
from metrabs_ros.tracking.tracker import Tracker

IMAGE_SHAPE = (720, 1280)
INTRINSICS = np.array([[900.0, 0, 640], [0, 900.0, 360], [0, 0, 1]])
NOISE_MM = np.array([30.0, 30.0, 100.0])
"""Standard deviations of the simulated poses along the camera's axes."""
MISS_RATE, FALSE_DETECTION_RATE = 0.05, 0.03
"""Probabilities of a missed and of a false detection, per person and frame."""
WALKING_SPEED_M_S = 1.3
MAX_SCENE_S = 61.0
"""Length of the simulated paths."""
WRIST, WAVE_HZ = 9, 2.0
MAX_MATCH_M = 0.5
"""Maximum distance between a person and the matched track."""

Path = Callable[[float], tuple[float, float]]
"""Position of a person's pelvis at a time, in seconds: metres to the right and forward."""


def standing_body() -> np.ndarray:
    """Return a pose [17, 3] relative to the pelvis, millimetres, y down, facing the camera."""
    right = [0, 35, -35, 70, -70, 180, -180, 250, -250, 270, -270, 100, -100, 105, -105, 110, -110]
    down = [*(-640, -670, -670, -650, -650, -450, -450, -180, -180, 60, 60, 0, 0), *[420] * 2]
    down += [830, 830]
    ahead = [-90, -60, -60, 0, 0, *[0] * 12]
    return np.stack([right, down, ahead], axis=-1).astype(float)


def pace_between(start: tuple[float, float], end: tuple[float, float], delay_s: float = 0) -> Path:
    """Return a path from one position to another and back, repeated without stops."""
    a, b = np.array(start), np.array(end)
    period_s = 2 * np.linalg.norm(b - a) / WALKING_SPEED_M_S

    def path(time_s: float) -> tuple[float, float]:
        phase = (time_s + delay_s) / period_s % 1
        share = 2 * min(phase, 1 - phase)
        return tuple(a + share * (b - a))

    return path


def crossing(seed: int) -> list[Path]:
    """Return the paths of six people that cross in the middle, each along another line."""
    rng = np.random.default_rng(seed)
    angles = np.pi * np.arange(6) / 6 + rng.uniform(-0.1, 0.1, 6)
    steps = 2.5 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    middle = np.array([0, 7.0]) + rng.uniform(-0.3, 0.3, (6, 2))
    goals_m = np.stack([middle - steps, middle + steps] * 30, axis=1)
    return walk_between(goals_m, rng.uniform(1, 1.4, 6))


def crowd(seed: int) -> list[Path]:
    """Return the paths of ten people between random goals."""
    rng = np.random.default_rng(seed)
    return walk_between(rng.uniform((-4, 6), (4, 14), (10, 60, 2)), rng.uniform(0.8, 1.5, 10))


def walk_between(goals_m: np.ndarray, speeds_m_s: np.ndarray) -> list[Path]:
    """
    Return the paths of people between their goals, with mutual avoidance by repulsive forces.

    Parameters
    ----------
    goals_m
        [P, G, 2], goals of each person, to the right and forward.
    speeds_m_s
        [P], preferred speeds.
    """
    step_s, people = 1 / 60, np.arange(len(goals_m))
    positions, velocities, goal = (
        goals_m[:, 0].copy(),
        np.zeros((len(goals_m), 2)),
        np.ones(len(people), int),
    )
    track = []
    for _ in range(round(MAX_SCENE_S / step_s)):
        ahead = goals_m[people, goal] - positions
        left = np.linalg.norm(ahead, axis=-1)
        goal += (left < 0.4) & (goal < goals_m.shape[1] - 1)
        desired = speeds_m_s[:, None] * ahead / np.maximum(left, 0.1)[:, None]
        apart = positions[:, None] - positions
        distance = np.linalg.norm(apart, axis=-1) + 10 * np.eye(len(people))
        # The sideways component avoids deadlocks of people that walk towards each other.
        aside = apart + 0.4 * np.stack([-apart[..., 1], apart[..., 0]], axis=-1)
        repulsion = (6 * np.exp((0.6 - distance) / 0.15) / distance)[..., None] * aside
        acceleration = (desired - velocities) / 0.5 + repulsion.sum(axis=1)
        velocities = velocities + step_s * np.clip(acceleration, -8, 8)
        positions = positions + step_s * velocities
        track.append(positions)
    track_m = np.array(track)
    times_s = step_s * np.arange(len(track_m))

    def path(person: int) -> Path:
        return lambda time_s: tuple(
            float(np.interp(time_s, times_s, track_m[:, person, k])) for k in (0, 1)
        )

    return [path(person) for person in people]


def stopping(seed: int) -> list[Path]:
    """Return the paths of four people in parallel rows that alternately walk and stand."""
    rng = np.random.default_rng(seed)

    def stop_and_go(row: int, delay_s: float) -> Path:
        walk = pace_between((-2.5, 5 + row), (2.5, 5 + row))

        def path(time_s: float) -> tuple[float, float]:
            turn, rest = divmod(time_s + delay_s, 5.0)
            return walk(2.5 * turn + min(rest, 2.5))

        return path

    return [stop_and_go(row, rng.uniform(0, 5)) for row in range(4)]


def rows(count: int) -> list[Path]:
    """Return the paths of people that walk back and forth in rows one metre apart."""
    return [pace_between((-2.5, 4 + i), (2.5, 4 + i), 1.7 * i) for i in range(count)]


def leaving() -> list[Path]:
    """Return the paths of three people that leave the image on both sides and soon return."""
    return [
        pace_between((-3.0 - 0.6 * i, 4 + i), (3.0 + 0.6 * i, 4 + i), 2.1 * i) for i in range(3)
    ]


def overtaking(seed: int) -> list[Path]:
    """Return the paths of three people that pass each other along the line of sight."""
    rng = np.random.default_rng(seed)
    return [
        pace_between((0.3 * i - 0.3, 4), (0.6 * i - 0.6, 12), rng.uniform(0, 12)) for i in range(3)
    ]


@dataclasses.dataclass(frozen=True)
class Scene:
    """
    Walking people, an optional occluder, and a camera that may turn.

    Parameters
    ----------
    paths
        Path of each of P people.
    pillar_degrees
        Minimum and maximum azimuth of the occluder; it hides everything behind it.
    turn_degrees_s
        Speed at which the camera pans from 20 degrees to one side to 20 degrees to the other.
    """

    paths: list[Path]
    pillar_degrees: tuple[float, float] = (0.0, 0.0)
    turn_degrees_s: float = 0.0

    def camera(self, time_s: float) -> Camera:
        """Return the camera with its pose at a time."""
        swing = (self.turn_degrees_s * time_s + 20) / 80 % 1
        yaw = np.radians(80 * min(swing, 1 - swing) - 20)
        extrinsics = np.eye(4)
        extrinsics[:3, :3] = [
            [np.cos(yaw), 0, -np.sin(yaw)],
            [0, 1, 0],
            [np.sin(yaw), 0, np.cos(yaw)],
        ]
        return Camera(INTRINSICS, extrinsic_matrix=extrinsics)

    def positions_mm(self, time_s: float) -> np.ndarray:
        """Return the positions of the pelvises, [P, 3], world frame."""
        positions = np.array([path(time_s) for path in self.paths]) * 1000
        return np.insert(positions, 1, 100.0, axis=1)

    def is_visible(self, time_s: float) -> np.ndarray:
        """Return which people are inside the image and not behind the pillar, [P]."""
        world_mm = self.positions_mm(time_s)
        azimuth = np.degrees(np.arctan2(world_mm[:, 0], world_mm[:, 2]))
        hidden = (azimuth > self.pillar_degrees[0]) & (azimuth < self.pillar_degrees[1])
        camera = self.camera(time_s)
        camera_mm = camera.from_world(world_mm)
        inside = inside_image(camera.project(camera_mm), IMAGE_SHAPE) & (camera_mm[:, 2] > 500)
        return inside & ~hidden


def people_from(poses_mm: np.ndarray, camera: Camera, skeleton: Skeleton = COCO_17) -> People:
    """Return people with poses [N, J, 3] as a network would detect them, camera frame."""
    poses_px = camera.project(poses_mm)
    low, high = poses_px.min(axis=1), poses_px.max(axis=1)
    people, joints = poses_mm.shape[:2]
    return People(
        skeleton=skeleton,
        boxes_px=np.concatenate([low, high - low], axis=1),
        confidence=np.full(people, 0.9),
        poses3d_mm=poses_mm,
        poses2d_px=poses_px,
        joint_confidence=np.ones((people, joints)),
        in_view=inside_image(poses_px, IMAGE_SHAPE),
        ids=np.full(people, UNKNOWN_ID),
    )


def add_noise(poses_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add noise to poses [N, J, 3]; half of its variance is common to each person's joints."""
    people, joints = poses_mm.shape[:2]
    independent = rng.normal(size=(people, joints, 3))
    common = rng.normal(size=(people, 1, 3))
    return poses_mm + NOISE_MM * (independent + common) / np.sqrt(2)


def frames(
    scene: Scene, rate_hz: float, length_s: float, seed: int
) -> Iterator[tuple[float, Camera, People]]:
    """Yield the stamp, the camera and the detections of each frame."""
    rng = np.random.default_rng(seed)
    body = standing_body()
    for i in range(round(length_s * rate_hz)):
        time_s = i / rate_hz
        camera = scene.camera(time_s)
        is_detected = scene.is_visible(time_s) & (rng.random(len(scene.paths)) > MISS_RATE)
        false_count = rng.binomial(len(scene.paths), FALSE_DETECTION_RATE)
        false_mm = rng.uniform((-4000, 100, 3000), (4000, 100, 14000), (false_count, 3))
        world_mm = np.concatenate([scene.positions_mm(time_s)[is_detected], false_mm])
        poses_mm = camera.from_world(world_mm[:, None] + body)
        order = rng.permutation(len(poses_mm))
        yield time_s, camera, people_from(add_noise(poses_mm[order], rng), camera)


def score(scene: Scene, rate_hz: float, length_s: float, seed: int = 0) -> tuple[float, int]:
    """Return the IDF1 and the number of identity switches of the detected tracks in a scene."""
    import motmetrics

    tracker = Tracker()
    events = motmetrics.MOTAccumulator(auto_id=True)
    for time_s, camera, detections in frames(scene, rate_hz, length_s, seed):
        people = tracker.update(detections, time_s, camera, IMAGE_SHAPE)
        people = people.select(people.seen)
        truth = np.flatnonzero(scene.is_visible(time_s))
        truth_m = scene.positions_mm(time_s)[truth] / 1000
        people_m = camera.to_world(people.positions_mm) / 1000
        apart_m = np.linalg.norm(truth_m[:, None] - people_m, axis=-1)
        events.update(truth, people.ids, np.where(apart_m < MAX_MATCH_M, apart_m, np.nan))
    summary = motmetrics.metrics.create().compute(events, metrics=['idf1', 'num_switches'])
    return float(summary.idf1.iloc[0]), int(summary.num_switches.iloc[0])


SCENES: dict[str, Callable[[], Scene]] = {
    'crossing': lambda: Scene(crossing(1)),
    'stopping': lambda: Scene(stopping(2)),
    'behind a pillar': lambda: Scene(rows(4), pillar_degrees=(3.0, 9.0)),
    'leaving and coming back': lambda: Scene(leaving()),
    'along the line of sight': lambda: Scene(overtaking(3)),
    'crowd': lambda: Scene(crowd(4)),
    'crossing, the camera turns': lambda: Scene(crossing(5), turn_degrees_s=60.0),
    'crowd, the camera turns': lambda: Scene(crowd(6), turn_degrees_s=60.0),
}


PATTERNS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    'random 1/2': lambda frames, rng: rng.random(frames) < 1 / 2,
    'random 1/3': lambda frames, rng: rng.random(frames) < 1 / 3,
    'random 1/5': lambda frames, rng: rng.random(frames) < 1 / 5,
    'every 2nd': lambda frames, rng: (np.arange(frames) + rng.integers(2)) % 2 == 0,
    'every 3rd': lambda frames, rng: (np.arange(frames) + rng.integers(3)) % 3 == 0,
    'every 5th': lambda frames, rng: (np.arange(frames) + rng.integers(5)) % 5 == 0,
    '2 of 3': lambda frames, rng: (np.arange(frames) + rng.integers(3)) % 3 > 0,
    'burst of 3': lambda frames, rng: burst(frames, 3, rng),
    'burst of 5': lambda frames, rng: burst(frames, 5, rng),
    '5 of 15': lambda frames, rng: (np.arange(frames) + rng.integers(15)) % 15 < 5,
}
"""Functions that return in which of a number of frames a false detection occurs, [F]."""
FALSE_POSITIONS_MM = np.array([(-2500.0, 100, 7500), (0, 100, 7500), (2500, 100, 7500)])
FALSE_JITTER_MM = np.array([[0.0], [100.0], [200.0]])
"""Standard deviations of the false detections' positions."""
REAL_POSITION_MM = np.array([(0.0, 100, 4000)])


def burst(frames: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Return a pattern [F] with a single run of consecutive false detections."""
    return (np.arange(frames) - rng.integers(10, 20)) // length == 0


@dataclasses.dataclass
class Counts:
    """
    Numbers of detections and of published people, over all frames.

    Parameters
    ----------
    detected, published
        [3], false people at FALSE_POSITIONS_MM.
    real
        Number of frames that publish the real person, which all frames detect.
    """

    detected: np.ndarray
    published: np.ndarray
    real: int


def count_false_people(pattern: str, rate_hz: float, frames: int, seed: int = 0) -> Counts:
    """
    Count published false people with intermittent false detections and one real person.

    Parameters
    ----------
    pattern
        Key of PATTERNS.
    rate_hz
        Frame rate; stamps have a jitter of a tenth of the frame period.
    frames
        Number of frames.
    seed
        Seed of the random numbers.
    """
    rng = np.random.default_rng(seed)
    present = np.stack([PATTERNS[pattern](frames, rng) for _ in FALSE_POSITIONS_MM], axis=1)
    counts = Counts(present.sum(axis=0), np.zeros(len(FALSE_POSITIONS_MM), int), 0)
    tracker, camera = Tracker(), Camera(INTRINSICS)
    for i in range(frames):
        false_mm = FALSE_POSITIONS_MM + FALSE_JITTER_MM * rng.normal(size=FALSE_POSITIONS_MM.shape)
        positions_mm = np.concatenate([REAL_POSITION_MM, false_mm[present[i]]])
        poses_mm = add_noise(positions_mm[:, None] + standing_body(), rng)
        stamp_s = (i + rng.uniform(-0.1, 0.1)) / rate_hz
        people = tracker.update(people_from(poses_mm, camera), stamp_s, camera, IMAGE_SHAPE)
        is_real = people.positions_mm[:, 2] < 5000
        apart_mm = people.positions_mm[~is_real, None, 0] - FALSE_POSITIONS_MM[:, 0]
        nearest = np.abs(apart_mm).argmin(axis=1)
        counts.published += np.bincount(nearest, minlength=len(FALSE_POSITIONS_MM))
        counts.real += int(is_real.sum())
    return counts


def track_person(
    move: Callable[[np.ndarray, float], None],
    rate_hz: float,
    length_s: float,
    noise: bool = True,
    misses: float = 0.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Return the true, the measured and the filtered joints of a person, [F, 17, 3], millimetres.

    Parameters
    ----------
    move
        Function that modifies the joints [17, 3] of a person at 4 m, given the time in seconds.
    rate_hz, length_s
        Frame rate and duration.
    noise
        Whether the measurements have noise.
    misses
        Probability of a missed detection.
    seed
        Seed of the random numbers.
    """
    rng = np.random.default_rng(seed)
    tracker, camera = Tracker(), Camera(INTRINSICS)
    truth, measured, filtered = [], [], []
    for i in range(round(length_s * rate_hz)):
        body = standing_body() + np.array([300.0, 100.0, 4000.0])
        move(body, i / rate_hz)
        pose = add_noise(body[None], rng) if noise else body[None]
        detections = people_from(pose, camera)
        detections = detections.select(rng.random(1) >= misses if i else np.ones(1, bool))
        people = tracker.update(detections, i / rate_hz, camera, IMAGE_SHAPE)
        assert not i or people.ids.tolist() in ([1], [])
        truth.append(body)
        measured.append(pose[0])
        filtered.append(people.poses3d_mm[0] if len(people) else filtered[-1])
    return np.array(truth), np.array(measured), np.array(filtered)


def stand(body: np.ndarray, time_s: float) -> None:
    """Leave the joints [17, 3] unchanged, for `track_person`."""


def wave(amplitude_mm: float) -> Callable[[np.ndarray, float], None]:
    """Return a motion for `track_person` that waves the left hand sideways at `WAVE_HZ`."""

    def move(body: np.ndarray, time_s: float) -> None:
        body[WRIST, 0] += amplitude_mm * np.sin(2 * np.pi * WAVE_HZ * time_s)

    return move


def jitter_ratio(measured: np.ndarray, filtered: np.ndarray) -> np.ndarray:
    """Return the standard deviation of measured over that of filtered joints, [3]: x, y, z."""
    settled = len(filtered) // 4
    return np.mean(measured[settled:].std(axis=0) / filtered[settled:].std(axis=0), axis=0)


def lag_and_gain(truth: np.ndarray, filtered: np.ndarray, rate_hz: float) -> tuple[float, float]:
    """Return the delay in seconds and the relative amplitude of a filtered wave [F]."""
    phases = np.exp(-2j * np.pi * WAVE_HZ * np.arange(len(truth)) / rate_hz)
    ratio = (filtered @ phases) / (truth @ phases)
    return -np.angle(ratio) / (2 * np.pi * WAVE_HZ), abs(ratio)
