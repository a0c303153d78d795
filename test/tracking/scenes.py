"""People whose ways are known, what a network says of them, and how well they are followed."""

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
MISSES, FALSE_ALARMS = 0.05, 0.03
PACE_M_S = 1.3
LONGEST_S = 61.0
WRIST, WAVES_HZ = 9, 2.0
SAME_M = 0.5

Path = Callable[[float], tuple[float, float]]
"""Where somebody's pelvis is at a time: metres to the right and forward."""


def standing_body() -> np.ndarray:
    """Return a person [17, 3] about the pelvis, millimetres, y down, facing the camera."""
    right = [0, 35, -35, 70, -70, 180, -180, 250, -250, 270, -270, 100, -100, 105, -105, 110, -110]
    down = [*(-640, -670, -670, -650, -650, -450, -450, -180, -180, 60, 60, 0, 0), *[420] * 2]
    down += [830, 830]
    ahead = [-90, -60, -60, 0, 0, *[0] * 12]
    return np.stack([right, down, ahead], axis=-1).astype(float)


def to_and_fro(start: tuple[float, float], end: tuple[float, float], delay_s: float = 0) -> Path:
    """Walk from one place to another and back, again and again, turning without a stop."""
    a, b = np.array(start), np.array(end)
    period_s = 2 * np.linalg.norm(b - a) / PACE_M_S

    def path(time_s: float) -> tuple[float, float]:
        phase = (time_s + delay_s) / period_s % 1
        share = 2 * min(phase, 1 - phase)
        return tuple(a + share * (b - a))

    return path


def crossing(seed: int) -> list[Path]:
    """Six walk to and fro through the middle, in as many directions."""
    rng = np.random.default_rng(seed)
    angles = np.pi * np.arange(6) / 6 + rng.uniform(-0.1, 0.1, 6)
    steps = 2.5 * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    middle = np.array([0, 7.0]) + rng.uniform(-0.3, 0.3, (6, 2))
    return walks(np.stack([middle - steps, middle + steps] * 30, axis=1), rng.uniform(1, 1.4, 6))


def crowd(seed: int) -> list[Path]:
    """Ten walk between places that they choose at random."""
    rng = np.random.default_rng(seed)
    return walks(rng.uniform((-4, 6), (4, 14), (10, 60, 2)), rng.uniform(0.8, 1.5, 10))


def walks(goals_m: np.ndarray, pace_m_s: np.ndarray) -> list[Path]:
    """
    Let people walk from goal to goal, and make way for each other as people do.

    Parameters
    ----------
    goals_m
        [P, G, 2].
    pace_m_s
        [P].
    """
    step_s, people = 1 / 60, np.arange(len(goals_m))
    places, speeds, goal = (
        goals_m[:, 0].copy(),
        np.zeros((len(goals_m), 2)),
        np.ones(len(people), int),
    )
    track = []
    for _ in range(round(LONGEST_S / step_s)):
        ahead = goals_m[people, goal] - places
        left = np.linalg.norm(ahead, axis=-1)
        goal += (left < 0.4) & (goal < goals_m.shape[1] - 1)
        wish = pace_m_s[:, None] * ahead / np.maximum(left, 0.1)[:, None]
        apart = places[:, None] - places
        distance = np.linalg.norm(apart, axis=-1) + 10 * np.eye(len(people))
        # To each other's right, lest two stop in front of each other for good.
        aside = apart + 0.4 * np.stack([-apart[..., 1], apart[..., 0]], axis=-1)
        push = (6 * np.exp((0.6 - distance) / 0.15) / distance)[..., None] * aside
        force = (wish - speeds) / 0.5 + push.sum(axis=1)
        speeds = speeds + step_s * np.clip(force, -8, 8)
        places = places + step_s * speeds
        track.append(places)
    track_m = np.array(track)
    times_s = step_s * np.arange(len(track_m))

    def path(person: int) -> Path:
        return lambda time_s: tuple(
            float(np.interp(time_s, times_s, track_m[:, person, k])) for k in (0, 1)
        )

    return [path(person) for person in people]


def stopping(seed: int) -> list[Path]:
    """Four walk side by side for some seconds, stand for some, and walk on."""
    rng = np.random.default_rng(seed)

    def one(row: int, delay_s: float) -> Path:
        walk = to_and_fro((-2.5, 5 + row), (2.5, 5 + row))

        def path(time_s: float) -> tuple[float, float]:
            turn, rest = divmod(time_s + delay_s, 5.0)
            return walk(2.5 * turn + min(rest, 2.5))

        return path

    return [one(row, rng.uniform(0, 5)) for row in range(4)]


def rows(count: int) -> list[Path]:
    """Walk to and fro in rows a metre apart."""
    return [to_and_fro((-2.5, 4 + i), (2.5, 4 + i), 1.7 * i) for i in range(count)]


def leaving() -> list[Path]:
    """Three walk out of the picture on both sides and come back within a second."""
    return [to_and_fro((-3.0 - 0.6 * i, 4 + i), (3.0 + 0.6 * i, 4 + i), 2.1 * i) for i in range(3)]


def overtaking(seed: int) -> list[Path]:
    """Three walk one behind the other along the line of sight, and pass each other there."""
    rng = np.random.default_rng(seed)
    return [
        to_and_fro((0.3 * i - 0.3, 4), (0.6 * i - 0.6, 12), rng.uniform(0, 12)) for i in range(3)
    ]


@dataclasses.dataclass(frozen=True)
class Scene:
    """
    People on their ways, and what hides them.

    Parameters
    ----------
    paths
        Of each person.
    pillar_degrees
        From where to where something hides all that is behind it, as seen from the camera.
    turn_degrees_s
        How fast the camera turns, to and fro, by 20 degrees to both sides.
    """

    paths: list[Path]
    pillar_degrees: tuple[float, float] = (0.0, 0.0)
    turn_degrees_s: float = 0.0

    def camera(self, time_s: float) -> Camera:
        swing = (self.turn_degrees_s * time_s + 20) / 80 % 1
        yaw = np.radians(80 * min(swing, 1 - swing) - 20)
        extrinsics = np.eye(4)
        extrinsics[:3, :3] = [
            [np.cos(yaw), 0, -np.sin(yaw)],
            [0, 1, 0],
            [np.sin(yaw), 0, np.cos(yaw)],
        ]
        return Camera(INTRINSICS, extrinsic_matrix=extrinsics)

    def places_mm(self, time_s: float) -> np.ndarray:
        """Return where the pelvises are, [P, 3], in the world."""
        places = np.array([path(time_s) for path in self.paths]) * 1000
        return np.insert(places, 1, 100.0, axis=1)

    def visible(self, time_s: float) -> np.ndarray:
        """Tell who is in the picture and not behind the pillar, [P]."""
        world_mm = self.places_mm(time_s)
        azimuth = np.degrees(np.arctan2(world_mm[:, 0], world_mm[:, 2]))
        hidden = (azimuth > self.pillar_degrees[0]) & (azimuth < self.pillar_degrees[1])
        camera = self.camera(time_s)
        camera_mm = camera.from_world(world_mm)
        inside = inside_image(camera.project(camera_mm), IMAGE_SHAPE) & (camera_mm[:, 2] > 500)
        return inside & ~hidden


def people_from(poses_mm: np.ndarray, camera: Camera, skeleton: Skeleton = COCO_17) -> People:
    """Return poses [N, J, 3] as a network would give them, camera frame."""
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


def noisy(poses_mm: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add a network's noise to poses [N, J, 3], half of it common to each person's joints."""
    people, joints = poses_mm.shape[:2]
    own = rng.normal(size=(people, joints, 3))
    common = rng.normal(size=(people, 1, 3))
    return poses_mm + NOISE_MM * (own + common) / np.sqrt(2)


def frames(
    scene: Scene, rate_hz: float, length_s: float, seed: int
) -> Iterator[tuple[float, Camera, People]]:
    """Give each frame's stamp, camera, and whom a network would find."""
    rng = np.random.default_rng(seed)
    body = standing_body()
    for i in range(round(length_s * rate_hz)):
        time_s = i / rate_hz
        camera = scene.camera(time_s)
        found = scene.visible(time_s) & (rng.random(len(scene.paths)) > MISSES)
        ghosts = rng.binomial(len(scene.paths), FALSE_ALARMS)
        anywhere = rng.uniform((-4000, 100, 3000), (4000, 100, 14000), (ghosts, 3))
        world_mm = np.concatenate([scene.places_mm(time_s)[found], anywhere])
        poses_mm = camera.from_world(world_mm[:, None] + body)
        order = rng.permutation(len(poses_mm))
        yield time_s, camera, people_from(noisy(poses_mm[order], rng), camera)


def score(scene: Scene, rate_hz: float, length_s: float, seed: int = 0) -> tuple[float, int]:
    """Return a scene's IDF1 and how often identities were switched, of those seen."""
    import motmetrics

    tracker = Tracker()
    events = motmetrics.MOTAccumulator(auto_id=True)
    for time_s, camera, found in frames(scene, rate_hz, length_s, seed):
        people = tracker.update(found, time_s, camera, IMAGE_SHAPE)
        people = people.select(people.seen)
        truth = np.flatnonzero(scene.visible(time_s))
        truth_m = scene.places_mm(time_s)[truth] / 1000
        people_m = camera.to_world(people.positions_mm) / 1000
        apart_m = np.linalg.norm(truth_m[:, None] - people_m, axis=-1)
        events.update(truth, people.ids, np.where(apart_m < SAME_M, apart_m, np.nan))
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
"""In which of so many frames a false detection is present, [F]."""
FALSE_PLACES_MM = np.array([(-2500.0, 100, 7500), (0, 100, 7500), (2500, 100, 7500)])
FALSE_JITTER_MM = np.array([[0.0], [100.0], [200.0]])
REAL_PLACE_MM = np.array([(0.0, 100, 4000)])


def burst(frames: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Return a pattern [F] that is present once, for some frames in a row."""
    return (np.arange(frames) - rng.integers(10, 20)) // length == 0


@dataclasses.dataclass
class Counts:
    """
    How often people are detected and published, over all frames.

    Parameters
    ----------
    detected, published
        [3], people who are not there, at FALSE_PLACES_MM.
    real
        In how many frames a person is published who is there and detected in each of them.
    """

    detected: np.ndarray
    published: np.ndarray
    real: int


def count_false_people(pattern: str, rate_hz: float, frames: int, seed: int = 0) -> Counts:
    """
    Count intermittent false detections beside a person who is detected in each frame.

    Parameters
    ----------
    pattern
        One of PATTERNS.
    rate_hz
        Frames a second; they come irregularly by a tenth of their distance.
    frames
        Number of frames.
    seed
        Of the random numbers.
    """
    rng = np.random.default_rng(seed)
    present = np.stack([PATTERNS[pattern](frames, rng) for _ in FALSE_PLACES_MM], axis=1)
    counts = Counts(present.sum(axis=0), np.zeros(len(FALSE_PLACES_MM), int), 0)
    tracker, camera = Tracker(), Camera(INTRINSICS)
    for i in range(frames):
        false_mm = FALSE_PLACES_MM + FALSE_JITTER_MM * rng.normal(size=FALSE_PLACES_MM.shape)
        places_mm = np.concatenate([REAL_PLACE_MM, false_mm[present[i]]])
        found = people_from(noisy(places_mm[:, None] + standing_body(), rng), camera)
        stamp_s = (i + rng.uniform(-0.1, 0.1)) / rate_hz
        people = tracker.update(found, stamp_s, camera, IMAGE_SHAPE)
        is_real = people.positions_mm[:, 2] < 5000
        apart_mm = people.positions_mm[~is_real, None, 0] - FALSE_PLACES_MM[:, 0]
        nearest = np.abs(apart_mm).argmin(axis=1)
        counts.published += np.bincount(nearest, minlength=len(FALSE_PLACES_MM))
        counts.real += int(is_real.sum())
    return counts


def somebody(
    move: Callable[[np.ndarray, float], None],
    rate_hz: float,
    length_s: float,
    noise: bool = True,
    misses: float = 0.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """
    Return a person's joints [F, 17, 3] as they were, as measured and as followed, millimetres.

    Parameters
    ----------
    move
        Changes the joints [17, 3] of somebody who stands 4 m away to what they are at a time.
    """
    rng = np.random.default_rng(seed)
    tracker, camera = Tracker(), Camera(INTRINSICS)
    truth, measured, followed = [], [], []
    for i in range(round(length_s * rate_hz)):
        body = standing_body() + np.array([300.0, 100.0, 4000.0])
        move(body, i / rate_hz)
        pose = noisy(body[None], rng) if noise else body[None]
        found = people_from(pose, camera)
        found = found.select(rng.random(1) >= misses if i else np.ones(1, bool))
        people = tracker.update(found, i / rate_hz, camera, IMAGE_SHAPE)
        assert not i or people.ids.tolist() in ([1], [])
        truth.append(body)
        measured.append(pose[0])
        followed.append(people.poses3d_mm[0] if len(people) else followed[-1])
    return np.array(truth), np.array(measured), np.array(followed)


def stand(body: np.ndarray, time_s: float) -> None:
    """Stand still."""


def wave(amplitude_mm: float) -> Callable[[np.ndarray, float], None]:
    """Wave the left hand sideways, twice a second."""

    def move(body: np.ndarray, time_s: float) -> None:
        body[WRIST, 0] += amplitude_mm * np.sin(2 * np.pi * WAVES_HZ * time_s)

    return move


def jitter(measured: np.ndarray, followed: np.ndarray) -> np.ndarray:
    """Return by how much calmer the joints are than they were measured, [3]: x, y, z."""
    settled = len(followed) // 4
    return np.mean(measured[settled:].std(axis=0) / followed[settled:].std(axis=0), axis=0)


def lag_and_gain(truth: np.ndarray, followed: np.ndarray, rate_hz: float) -> tuple[float, float]:
    """Return how many seconds late a wave [F] is followed, and how much of it is left."""
    phases = np.exp(-2j * np.pi * WAVES_HZ * np.arange(len(truth)) / rate_hz)
    ratio = (followed @ phases) / (truth @ phases)
    return -np.angle(ratio) / (2 * np.pi * WAVES_HZ), abs(ratio)
