"""
Built-in skeletons, as affine combinations of the joints of blazepose_33.

Joints of which a convention says how they follow from others, such as the midpoint of the hips,
are exact.  The other combinations are anatomical estimates from these sources:

- ANSUR: Gordon et al., 1988 Anthropometric Survey of U.S. Army Personnel (1989)
- de Leva: Adjustments to Zatsiorsky-Seluyanov's segment inertia parameters, J. Biomech. 29 (1996)
- Farkas: Anthropometry of the Head and Face, 2nd edition (1994)
- Ionescu: Human3.6M, TPAMI 36 (2014)
- Joo: Panoptic Studio, ICCV 2015
- Loper: SMPL, ACM TOG 34 (2015)

Combinations of joints in a plane stay in this plane: a spine that curves out of the plane of the
shoulders and hips is not modelled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from metrabs_ros.skeletons.conventions import BLAZEPOSE_33, COCO_17, Skeleton, with_named_edges
from metrabs_ros.skeletons.definitions import SkeletonDefinition

Combination = Mapping[str, float]
"""Weights of joints by name."""


class Joint(NamedTuple):
    """
    A joint of a skeleton.

    Parameters
    ----------
    combination
        Weights of joints of blazepose_33.
    note
        What it is based on; empty if it is the same joint.
    deviation_mm
        Estimated standard deviation from the combination along each axis; 0 if it is exact.
    """

    combination: Combination
    note: str = ''
    deviation_mm: float = 0.0


def joint(name: str) -> Combination:
    """Return the combination that is a joint of blazepose_33."""
    return {name: 1.0}


def between(start: Combination, end: Combination, share: float = 0.5) -> Combination:
    """Return the point at a share of the way from one combination to another one."""
    weights = {name: (1 - share) * weight for name, weight in start.items()}
    for name, weight in end.items():
        weights[name] = weights.get(name, 0.0) + share * weight
    return weights


def middle(part: str) -> Combination:
    """Return the midpoint of the left and the right joint."""
    names = (f'{part}_left', f'{part}_right') if part == 'mouth' else ()
    left, right = names or (f'left_{part}', f'right_{part}')
    return between(joint(left), joint(right))


HIPS, SHOULDERS, EARS = middle('hip'), middle('shoulder'), middle('ear')
PELVIS = Joint(HIPS, 'midpoint of the hips, by definition')
NECK = Joint(SHOULDERS, 'midpoint of the shoulders, by definition')
_UP = {
    name: sign * 0.5
    for sign, part in ((1, 'left_eye right_eye'), (-1, 'mouth_left mouth_right'))
    for name in part.split()
}
"""From the mouth to the eyes: 70 mm along the height of the head (Farkas)."""
EYES_ABOVE_MOUTH_MM, VERTEX_ABOVE_EAR_MM = 70.0, 131.0
HEAD_TOP = Joint(
    {**EARS, **{name: VERTEX_ABOVE_EAR_MM / EYES_ABOVE_MOUTH_MM * w for name, w in _UP.items()}},
    'ears + 131/70 of the way from mouth to eyes: tragion to vertex 131 mm (ANSUR), mouth to eyes '
    '70 mm (Farkas)',
    35.0,
)


def along_trunk(share: float) -> Combination:
    """Return a point on the line from the midpoint of the hips to that of the shoulders."""
    return between(HIPS, SHOULDERS, share)


def along_neck(share: float) -> Combination:
    """Return a point on the line from the midpoint of the shoulders to that of the ears."""
    return between(SHOULDERS, EARS, share)


def _knuckles(side: str) -> Combination:
    return between(joint(f'{side}_index'), joint(f'{side}_pinky'))


def _hand(side: str) -> Joint:
    return Joint(
        _knuckles(side),
        'midpoint of the knuckles of index and little finger: third knuckle, 86 mm from the wrist '
        '(de Leva)',
        15.0,
    )


def _sole(side: str, share: float) -> Combination:
    return between(joint(f'{side}_heel'), joint(f'{side}_foot_index'), share)


def define(
    name: str, joints: Mapping[str, Joint | None], bones: str, *paths: str, description: str
) -> SkeletonDefinition:
    """
    Create the definition of a skeleton.

    Parameters
    ----------
    name
        Name of the skeleton.
    joints
        Its joints in their order; None for those of blazepose_33 with the same name.
    bones, paths
        Chains of joints; see `with_named_edges`.
    description
        What the skeleton is.
    """
    known = {key: own or Joint(joint(key)) for key, own in joints.items()}
    skeleton = with_named_edges(name, tuple(known), bones, *paths)
    used = [
        source
        for source in BLAZEPOSE_33.joint_names
        if any(source in own.combination for own in known.values())
    ]
    weights = [[own.combination.get(source, 0.0) for source in used] for own in known.values()]
    return SkeletonDefinition(
        skeleton,
        BLAZEPOSE_33.name,
        tuple(used),
        np.array(weights),
        np.array([own.deviation_mm for own in known.values()]),
        tuple(own.note for own in known.values()),
        description,
    )


def _subset(skeleton: Skeleton, description: str) -> SkeletonDefinition:
    count = len(skeleton)
    return SkeletonDefinition(
        skeleton,
        BLAZEPOSE_33.name,
        skeleton.joint_names,
        np.eye(count),
        np.zeros(count),
        ('',) * count,
        description,
    )


def _h36m_17() -> SkeletonDefinition:
    hip = Joint(
        joint('*_hip'),
        'hip of blazepose_33; hips of Human3.6M are 265 mm apart and at the height of the pelvis '
        '(Ionescu)',
        30.0,
    )
    joints: dict[str, Joint | None] = {'pelvis': PELVIS}
    for side in ('right', 'left'):
        joints |= {f'{side}_hip': on_side(hip, side), f'{side}_knee': None, f'{side}_ankle': None}
    joints |= {
        'spine': Joint(
            along_trunk(0.5),
            '0.5 of the way from hips to shoulders: 233 of 490 mm from pelvis to neck (Ionescu)',
            30.0,
        ),
        'neck': Joint(
            along_trunk(1.05),
            '1.05 of the way from hips to shoulders: between the sternum at 1.03 and the seventh '
            'vertebra at 1.17 (de Leva)',
            25.0,
        ),
        'head': Joint(
            between(joint('nose'), EARS),
            'midpoint of nose and ears; halfway between neck and top of the head (Ionescu)',
            35.0,
        ),
        'head_top': HEAD_TOP,
    }
    for side in ('left', 'right'):
        joints |= {f'{side}_{part}': None for part in ('shoulder', 'elbow', 'wrist')}
    return define(
        'h36m_17',
        joints,
        """
        pelvis *_hip *_knee *_ankle
        neck *_shoulder *_elbow *_wrist
        """,
        'pelvis spine neck head head_top',
        description='Human3.6M, the 17 joints of its usual subset',
    )


def _coco_19() -> SkeletonDefinition:
    joints: dict[str, Joint | None] = {'neck': NECK, 'nose': None, 'pelvis': PELVIS}
    for side in ('left', 'right'):
        parts = ('shoulder', 'elbow', 'wrist', 'hip', 'knee', 'ankle')
        joints |= {f'{side}_{part}': None for part in parts}
    for side in ('left', 'right'):
        joints |= {f'{side}_eye': None, f'{side}_ear': None}
    return define(
        'coco_19',
        joints,
        """
        neck *_shoulder *_elbow *_wrist
        pelvis *_hip *_knee *_ankle
        nose *_eye *_ear
        """,
        'pelvis neck nose',
        description='CMU Panoptic Studio: coco_17 with neck and pelvis (Joo)',
    )


def _smpl_24() -> SkeletonDefinition:
    of_rest_pose = 'of the way from hips to shoulders, as in the mean body at rest (Loper)'
    sides = ('left', 'right')
    hip = Joint(
        joint('*_hip'),
        'hip of blazepose_33; hips of SMPL are closer to each other and lower (Loper)',
        40.0,
    )
    foot = Joint(
        _sole('*', 0.65),
        '0.65 of the way from heel to toes: ball of the foot at 0.73 of its length (ANSUR), in '
        'SMPL in front of it (Loper)',
        25.0,
    )
    collar = Joint(
        between(along_trunk(0.94), joint('*_shoulder'), 0.46),
        '0.46 of the way from the trunk to the shoulder (Loper)',
        25.0,
    )

    def spine(share: float, deviation_mm: float = 30.0) -> Joint:
        return Joint(along_trunk(share), f'{share:g} {of_rest_pose}', deviation_mm)

    joints: dict[str, Joint | None] = {'pelvis': spine(0.17)}
    joints |= {f'{side}_hip': on_side(hip, side) for side in sides}
    joints['spine1'] = spine(0.37)
    joints |= {f'{side}_knee': None for side in sides}
    joints['spine2'] = spine(0.62)
    joints |= {f'{side}_ankle': None for side in sides}
    joints['spine3'] = spine(0.72)
    joints |= {f'{side}_foot': on_side(foot, side) for side in sides}
    joints['neck'] = Joint(
        along_neck(0.31), '0.31 of the way from shoulders to ears (Loper, de Leva)', 25.0
    )
    joints |= {f'{side}_collar': on_side(collar, side) for side in sides}
    joints['head'] = Joint(
        along_neck(0.63), '0.63 of the way from shoulders to ears (Loper, de Leva)', 25.0
    )
    for part in ('shoulder', 'elbow', 'wrist'):
        joints |= {f'{side}_{part}': None for side in sides}
    joints |= {f'{side}_hand': _hand(side) for side in sides}
    return define(
        'smpl_24',
        joints,
        """
        pelvis *_hip *_knee *_ankle *_foot
        spine3 *_collar *_shoulder *_elbow *_wrist *_hand
        """,
        'pelvis spine1 spine2 spine3 neck head',
        description='the 24 joints of the body model SMPL (Loper)',
    )


def _kinectv2_25() -> SkeletonDefinition:
    def spine(share: float) -> Joint:
        return Joint(
            along_trunk(share), f'{share:g} of the way from hips to shoulders (Kinect SDK)', 30.0
        )

    joints: dict[str, Joint | None] = {
        'spine_base': spine(0.05),
        'spine_mid': spine(0.55),
        'neck': Joint(along_neck(0.4), '0.4 of the way from shoulders to ears (Kinect SDK)', 25.0),
        'head': Joint(EARS, 'midpoint of the ears; centre of the head (Kinect SDK)', 25.0),
    }
    palm = Joint(
        between(joint('*_wrist'), _knuckles('*'), 0.8),
        '0.8 of the way from the wrist to the knuckles (Kinect SDK)',
        20.0,
    )
    for side in ('left', 'right'):
        joints |= {f'{side}_{part}': None for part in ('shoulder', 'elbow', 'wrist')}
        joints[f'{side}_hand'] = on_side(palm, side)
    foot = Joint(_sole('*', 0.8), '0.8 of the way from heel to toes (Kinect SDK)', 25.0)
    for side in ('left', 'right'):
        joints |= {f'{side}_{part}': None for part in ('hip', 'knee', 'ankle')}
        joints[f'{side}_foot'] = on_side(foot, side)
    joints['spine_shoulder'] = Joint(SHOULDERS, 'midpoint of the shoulders (Kinect SDK)', 25.0)
    tip = Joint(
        between(joint('*_wrist'), _knuckles('*'), 188 / 86),
        'wrist + 188/86 of the way to the knuckles, with straight fingers (de Leva)',
        40.0,
    )
    thumb = Joint(joint('*_thumb'), 'thumb of blazepose_33, which is not its tip', 25.0)
    for side in ('left', 'right'):
        joints[f'{side}_hand_tip'] = on_side(tip, side)
        joints[f'{side}_thumb'] = on_side(thumb, side)
    return define(
        'kinectv2_25',
        joints,
        """
        spine_base *_hip *_knee *_ankle *_foot
        spine_shoulder *_shoulder *_elbow *_wrist *_hand *_hand_tip
        *_wrist *_thumb
        """,
        'spine_base spine_mid spine_shoulder neck head',
        description='Microsoft Kinect v2, joints in the order of its SDK',
    )


def _ros4hri_18() -> SkeletonDefinition:
    joints: dict[str, Joint | None] = {'nose': None, 'neck': NECK}
    for parts in (('shoulder', 'elbow', 'wrist'), ('hip', 'knee', 'ankle')):
        for side in ('right', 'left'):
            joints |= {f'{side}_{part}': None for part in parts}
    joints |= {f'{side}_{part}': None for part in ('eye', 'ear') for side in ('left', 'right')}
    return define(
        'ros4hri_18',
        joints,
        """
        neck *_shoulder *_elbow *_wrist
        neck *_hip *_knee *_ankle
        neck nose *_eye *_ear
        """,
        description='ROS4HRI (REP 155), in the order of hri_msgs/Skeleton2D',
    )


def on_side(template: Joint, side: str) -> Joint:
    """Return a joint whose combination has `*` in place of the side."""
    combination: dict[str, float] = {}
    for name, weight in template.combination.items():
        own = name.replace('*', side)
        combination[own] = combination.get(own, 0.0) + weight
    return template._replace(combination=combination)


DEFINITIONS = {
    definition.skeleton.name: definition
    for definition in (
        _subset(BLAZEPOSE_33, 'all joints of BlazePose'),
        _subset(COCO_17, 'MS COCO keypoints'),
        _coco_19(),
        _h36m_17(),
        _smpl_24(),
        _kinectv2_25(),
        _ros4hri_18(),
    )
}
"""The skeletons of models with the joints blazepose_33, by name; the first one has all joints."""
