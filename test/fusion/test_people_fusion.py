from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

import numpy as np
import pytest
import simulated_rooms as rooms

from metrabs_ros.camera import Camera
from metrabs_ros.fusion.frame_sets import FrameSets
from metrabs_ros.fusion.fused_people import FusedPeople
from metrabs_ros.fusion.observations import CameraPeople
from metrabs_ros.fusion.people_fusion import PeopleFusion
from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, COCO_17, Skeleton

Change = Callable[[CameraPeople], CameraPeople | None]
RATE_HZ = 15


def fuse(
    room: rooms.Room,
    length_s: float,
    change: Change = lambda frame: frame,
    noise: float = 1.0,
    **parameters,
) -> tuple[PeopleFusion, list[FusedPeople]]:
    """Return the fusion of a simulated room, whose frames a function may change or drop."""
    fusion, sets, results = PeopleFusion(COCO_17, **parameters), FrameSets(), []
    cameras = rooms.simulated_cameras(room, RATE_HZ, 1, noise)
    for frame, _ in rooms.frames(room, cameras, length_s):
        changed = change(frame)
        if changed is not None:
            results += [fusion.update(complete) for complete in sets.add(changed)]
    return fusion, results


def errors_mm(room: rooms.Room, result: FusedPeople) -> np.ndarray:
    """Return the mean joint error of the fused person nearest to each true person, [P]."""
    true_mm = room.people_mm(result.stamp_s - 1)
    apart_mm = np.linalg.norm(true_mm[:, None] - result.poses3d_mm, axis=-1).mean(axis=-1)
    return apart_mm.min(axis=1, initial=np.inf)


def excluded(fusion: PeopleFusion) -> dict[str, str]:
    return {s.name: s.excluded_because for s in fusion.camera_statuses() if s.excluded_because}


def changed_camera(name: str, change: Callable[[Camera], Camera]) -> Change:
    """Return a change of the pose that a camera reports."""

    def apply(frame: CameraPeople) -> CameraPeople:
        if frame.camera_name != name:
            return frame
        return dataclasses.replace(frame, camera=change(frame.camera))

    return apply


def turned(camera: Camera, angle: float, axis: int) -> Camera:
    """Return a camera turned about one of its own axes."""
    a, b = (i for i in range(3) if i != axis)
    rotation = np.eye(4)
    rotation[[a, b], [a, b]] = np.cos(angle)
    rotation[a, b], rotation[b, a] = -np.sin(angle), np.sin(angle)
    return dataclasses.replace(camera, extrinsic_matrix=rotation @ camera.extrinsic_matrix)


@pytest.mark.parametrize(('cameras', 'people'), [(2, 2), (4, 3)])
def test_people_in_a_room_keep_their_ids_and_are_more_accurate_than_in_one_camera(cameras, people):
    score = rooms.score(rooms.Room.random(cameras, people, 1), RATE_HZ, 6.0)
    assert score.switches_per_min == 0
    assert score.mpjpe_mm < score.single_mpjpe_mm / 3
    assert score.longest_duplicate_s <= 0.2
    assert score.idf1 > 0.95


def test_a_person_keeps_its_id_through_a_gap_between_two_views():
    room = rooms.Room.corridor(2.0)
    _, results = fuse(room, 8.0, noise=0.5, max_lost=4.0)
    ids = [set(own.ids.tolist()) for own in results if own.seen.any()]
    assert set.union(*ids) == ids[0]
    seen_by = np.concatenate(
        [own.seen_by[own.seen] for own in results if len(own.camera_names) > 1]
    )
    assert seen_by.any(axis=0).all()


def test_a_false_person_does_not_take_the_identity_of_a_lost_one():
    room = rooms.Room.corridor(3.0)
    false_mm = room.people_mm(3.4)
    false_mm += (1500, 600, 0) - false_mm.mean(axis=1, keepdims=True) * (1, 1, 0)

    def change(frame: CameraPeople) -> CameraPeople:
        if frame.camera_name != 'camera1' or not 4.39 < frame.stamp_s < 4.46:
            return frame
        camera = rooms.SimulatedCamera('camera1', frame.camera, 1, RATE_HZ, 0, 0, 0.0)
        return camera.observe(false_mm, frame.stamp_s)[0]

    _, results = fuse(room, 5.0, change, noise=0.3, max_lost=4.0)
    before = next(own for own in results if own.stamp_s > 3.5)
    assert results[-1].ids[results[-1].seen].tolist() == before.ids.tolist()
    assert errors_mm(room, results[-1]) < 700


def test_a_person_who_returns_elsewhere_after_an_occlusion_keeps_the_id():
    room = rooms.Room.random(3, 1, 1)
    _, results = fuse(
        room, 5.0, lambda f: None if 2.5 < f.stamp_s < 3.8 else f, noise=0.5, max_lost=2.0
    )
    assert len(np.unique(np.concatenate([own.ids for own in results]))) == 1


@pytest.mark.parametrize('size', [0.85, pytest.param(1.15, marks=pytest.mark.slow)])
def test_the_size_of_a_person_is_remembered_when_one_camera_remains(size):
    room = rooms.Room.random(3, 1, 1)

    def change(frame: CameraPeople) -> CameraPeople | None:
        if frame.stamp_s > 4 and frame.camera_name != 'camera0':
            return None
        poses_mm = frame.camera.to_world(size * frame.camera.from_world(frame.poses3d_mm))
        return dataclasses.replace(frame, poses3d_mm=poses_mm)

    _, results = fuse(room, 7.0, change, noise=0.1)
    alone = [errors_mm(room, own)[0] for own in results if own.stamp_s > 5.5]
    distance_mm = np.linalg.norm(room.cameras['camera0'].position_mm)
    assert np.mean(alone) < 0.05 * distance_mm
    _, results = fuse(
        room, 7.0, lambda f: change(f) if f.camera_name == 'camera0' else None, noise=0.1
    )
    unknown = [errors_mm(room, own)[0] for own in results if own.stamp_s > 5.5]
    assert np.mean(unknown) > 2 * np.mean(alone)


def test_image_points_without_3d_poses_are_sufficient_for_two_cameras():
    room = rooms.Room.random(3, 2, 1)
    empty = np.zeros(0)
    _, results = fuse(
        room, 3.0, lambda f: dataclasses.replace(f, poses3d_mm=empty, axis_std_mm=empty)
    )
    assert np.mean([errors_mm(room, own) for own in results[20:]]) < 80


def test_standard_deviations_agree_with_the_errors():
    room = rooms.Room.random(3, 2, 1)
    _, results = fuse(room, 5.0)
    ratios = []
    for own in results[20:]:
        true_mm = room.people_mm(own.stamp_s - 1)
        for pose_mm, std_mm in zip(own.poses3d_mm, own.axis_std_mm):
            off_mm = np.linalg.norm(true_mm - pose_mm, axis=-1).mean(axis=1)
            ratios.append((true_mm[off_mm.argmin()] - pose_mm) / std_mm)
    assert 0.5 < np.std(ratios) < 2


@pytest.mark.parametrize(
    'change',
    [
        lambda camera: turned(camera, np.pi, 2),
        pytest.param(lambda camera: turned(camera, np.radians(20), 1), marks=pytest.mark.slow),
        lambda camera: turned(camera, np.radians(5), 1),
    ],
    ids=['upside down', '20 degrees', '5 degrees'],
)
def test_a_camera_with_wrong_extrinsics_is_named_and_the_others_continue(change):
    room = rooms.Room.random(4, 2, 1)
    fusion, results = fuse(room, 5.0, changed_camera('camera2', change))
    assert set(excluded(fusion)) == {'camera2'}
    assert 'extrinsic calibration' in excluded(fusion)['camera2']
    assert np.mean([errors_mm(room, own) for own in results[45:]]) < 80
    assert max(len(own) for own in results[45:]) == 2


def test_a_camera_is_used_again_after_its_extrinsics_are_corrected():
    room = rooms.Room.random(4, 2, 1)

    def change(frame: CameraPeople) -> CameraPeople:
        wrong = frame.camera_name == 'camera2' and frame.stamp_s < 4
        camera = turned(frame.camera, np.pi, 2) if wrong else frame.camera
        return dataclasses.replace(frame, camera=camera)

    fusion, results = fuse(room, 7.0, change)
    assert not excluded(fusion)
    assert results[-1].seen_by[:, results[-1].camera_names.index('camera2')].any()


def test_a_camera_that_is_listed_twice_counts_once():
    room = rooms.Room.random(3, 2, 1)
    room.cameras['copy'] = room.cameras['camera1']
    fusion, results = fuse(room, 2.0)
    ((name, reason),) = excluded(fusion).items()
    assert {name, 'camera1' if 'camera1' in reason else 'copy'} == {'camera1', 'copy'}
    assert np.mean([errors_mm(room, own) for own in results[15:]]) < 80


@pytest.mark.parametrize('name', ['camera0', 'camera2'])
def test_a_camera_whose_clock_is_off_is_named_and_the_others_continue(name):
    room = rooms.Room.random(3, 2, 1)

    def change(frame: CameraPeople) -> CameraPeople:
        offset_s = 5.0 * (frame.camera_name == name)
        return dataclasses.replace(frame, stamp_s=frame.stamp_s + offset_s)

    fusion, results = fuse(room, 3.0, change)
    assert list(excluded(fusion)) == [name]
    assert re.search(r'\+(4\.9|5\.0) s', excluded(fusion)[name])
    assert np.mean([errors_mm(room, own) for own in results[-40:]]) < 80


def test_people_are_kept_when_the_clock_of_a_camera_jumps():
    room = rooms.Room.random(3, 1, 1)
    cameras = rooms.simulated_cameras(room, RATE_HZ, 1, 0.3)
    fusion = PeopleFusion(COCO_17)
    for i in range(20):
        frames = [own.observe(room.people_mm(i / RATE_HZ), i / RATE_HZ)[0] for own in cameras]
        if i < 15:
            before = fusion.update(frames)
            continue
        fusion.update([dataclasses.replace(frames[2], stamp_s=frames[2].stamp_s + 5)])
        after = fusion.update(frames[:2])
        assert after.stamp_s == frames[0].stamp_s
    assert list(excluded(fusion)) == ['camera2']
    assert after.ids.tolist() == before.ids.tolist()


def test_people_are_kept_when_all_cameras_but_one_stop_and_return():
    room = rooms.Room.random(4, 2, 1)

    def change(frame: CameraPeople) -> CameraPeople | None:
        stopped = frame.camera_name != 'camera0' and 4 < frame.stamp_s < 6
        return None if stopped else frame

    fusion, results = fuse(room, 7.0, change, noise=0.5)
    camera = rooms.SimulatedCamera('camera0', room.cameras['camera0'], 2, RATE_HZ, 0, 0)
    before = next(own for own in results if own.stamp_s > 3.9)
    for own in results:
        if 4.3 < own.stamp_s < 6:
            visible = camera.is_visible(room.people_mm(own.stamp_s - 1))
            assert len(own) >= visible.sum()
            assert (errors_mm(room, own)[visible] < 500).all()
    assert set(results[-1].ids) == set(before.ids)
    assert not excluded(fusion)


def test_exchanged_sides_in_one_view_do_not_change_the_person():
    room = rooms.Room.random(4, 1, 1)

    def change(frame: CameraPeople) -> CameraPeople:
        if frame.camera_name != 'camera1' or frame.stamp_s < 2:
            return frame
        return dataclasses.replace(frame, points2d_px=frame.points2d_px[:, COCO_17.mirror])

    _, plain = fuse(room, 4.0, noise=0.3)
    _, results = fuse(room, 4.0, change, noise=0.3)
    plain_mm, exchanged_mm = (
        np.mean([errors_mm(room, own) for own in these[20:]]) for these in (plain, results)
    )
    assert exchanged_mm < plain_mm + 5


def damage(frame: CameraPeople, rng: np.random.Generator) -> CameraPeople:
    """Return a frame with invalid values."""
    points_px, confidence = frame.points2d_px.copy(), frame.joint_confidence.copy()
    poses_mm, std_mm = frame.poses3d_mm.copy(), frame.axis_std_mm.copy()
    for values, value in (
        *((points_px, np.nan), (points_px, 1e30), (points_px, -1e8), (confidence, 0.0)),
        *((confidence, np.nan), (poses_mm, np.nan), (poses_mm, 1e30), (std_mm, 0.0)),
        *((std_mm, -5.0), (std_mm, np.nan), (std_mm, np.inf)),
    ):
        values[rng.random(values.shape) < 0.05] = value
    return dataclasses.replace(
        frame,
        points2d_px=points_px,
        joint_confidence=confidence,
        poses3d_mm=poses_mm,
        axis_std_mm=std_mm,
    )


@pytest.mark.filterwarnings('error')
def test_invalid_values_never_reach_the_result():
    rng = np.random.default_rng(0)
    _, results = fuse(rooms.Room.random(3, 3, 2), 4.0, lambda frame: damage(frame, rng))
    assert any(len(own) for own in results)
    for own in results:
        for name, values in vars(own).items():
            if isinstance(values, np.ndarray):
                assert np.isfinite(values).all(), name


@pytest.mark.filterwarnings('error')
def test_people_behind_and_at_the_camera_are_harmless():
    room = rooms.Room.random(3, 2, 1)
    behind = changed_camera('camera1', lambda camera: turned(camera, np.pi, 1))
    _, results = fuse(room, 2.0, behind)
    assert all(np.isfinite(own.poses3d_mm).all() for own in results)
    inside = room.people_mm(0.5)[0, 0]

    def move(camera: Camera) -> Camera:
        matrix = camera.extrinsic_matrix.copy()
        matrix[:3, 3] = -matrix[:3, :3] @ inside
        return dataclasses.replace(camera, extrinsic_matrix=matrix)

    _, results = fuse(room, 2.0, changed_camera('camera1', move))
    assert all(np.isfinite(own.poses3d_mm).all() for own in results)


def test_cameras_with_other_skeletons_are_fused_by_joint_names():
    room = rooms.Room.random(3, 1, 1)
    index = [COCO_17.joint_names.index(n) for n in COCO_17.joint_names]
    to_33 = np.array(
        [
            index[COCO_17.joint_names.index(n)] if n in COCO_17.joint_names else 0
            for n in BLAZEPOSE_33.joint_names
        ]
    )
    is_known = np.array([n in COCO_17.joint_names for n in BLAZEPOSE_33.joint_names])

    def change(frame: CameraPeople) -> CameraPeople:
        if frame.camera_name != 'camera1':
            return frame
        return dataclasses.replace(
            frame,
            skeleton=BLAZEPOSE_33,
            points2d_px=frame.points2d_px[:, to_33],
            joint_confidence=frame.joint_confidence[:, to_33] * is_known,
            poses3d_mm=frame.poses3d_mm[:, to_33],
            axis_std_mm=frame.axis_std_mm[:, to_33],
        )

    _, results = fuse(room, 3.0, change)
    assert results[-1].seen_by[0].all()
    assert np.mean([errors_mm(room, own) for own in results[20:]]) < 60


def test_a_time_that_jumps_back_starts_again_without_repeating_ids():
    room = rooms.Room.random(3, 1, 1)
    fusion, results = fuse(room, 2.0)
    sets, again = FrameSets(), []
    cameras = rooms.simulated_cameras(room, RATE_HZ, 1)
    for frame, _ in rooms.frames(room, cameras, 2.0):
        early = dataclasses.replace(frame, stamp_s=frame.stamp_s - 100)
        again += [fusion.update(complete) for complete in sets.add(early)]
    assert len(again[-1]) == 1
    assert again[-1].ids[0] > results[-1].ids[0]
    assert not excluded(fusion)


def test_the_state_does_not_grow():
    room = rooms.Room.random(3, 2, 1)
    fusion, _ = fuse(room, 6.0, max_lost=0.3)
    assert len(fusion._tracks) < 12
    assert len(fusion._cameras._clocks._offsets_s) == 6


@pytest.mark.parametrize(
    ('parameter', 'value'),
    [('max_lost', -1), ('min_hits', 0), ('smoothing', 2), ('max_lost', np.nan)],
)
def test_parameters_out_of_range_are_refused(parameter, value):
    with pytest.raises(ValueError, match=f'{parameter} is {value}'):
        PeopleFusion(COCO_17, **{parameter: value})


def test_ids_of_a_fusion_that_replaces_another_one_are_new():
    fusion, results = fuse(rooms.Room.random(2, 1, 1), 1.0)
    _, later = fuse(rooms.Room.random(2, 1, 1), 1.0, first_id=fusion.next_id)
    assert later[-1].ids.min() > results[-1].ids.max()


def test_a_skeleton_without_joints_is_refused():
    with pytest.raises(ValueError, match='the skeleton nothing has no joints'):
        PeopleFusion(Skeleton('nothing', (), ()))


def test_no_frames_and_empty_frames_give_no_people():
    fusion = PeopleFusion(COCO_17)
    assert len(fusion.update([])) == 0
    _, results = fuse(rooms.Room.random(2, 1, 1), 1.0, lambda frame: frame.select(slice(0)))
    assert not any(len(own) for own in results)
