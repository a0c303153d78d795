"""
Built-in skeletons, as affine combinations of the joints of blazepose_33.

Joints of which a convention says how they follow from others, such as the midpoint of the hips,
are exact.  The other combinations are anatomical estimates from these sources, each of which was
read; what they do not contain is called an estimate:

- ANSUR II: Gordon et al., 2012 Anthropometric Survey of U.S. Army Personnel, NATICK/TR-15/007
  (2014), means of its public data of 4082 men and 1986 women.
- Face: facial heights in DOI 10.1186/s40902-019-0191-7, table 9.
- H36M: lengths of the skeleton of Human3.6M in src/forward_kinematics.py of
  una-dinosauria/human-motion-prediction, and four poses of Human3.6M in
  tests/data/h36m/test_h36m_body3d.npz of open-mmlab/mmpose.
- hri_msgs: Skeleton2D.msg, which has the order of the joints of OpenPose.
- Kinect SDK: reference of the enumeration JointType.  It names the joints and does not say where
  they are.  Two example frames, of two people, were used to check the estimates.
- Panoptic: README.md of CMU-Perceptual-Computing-Lab/panoptic-toolbox, and six poses in
  tests/data/panoptic_body3d of open-mmlab/mmpose.
- SMPL: joints and boxes of the mean body at rest in smpl_humanoid.xml of NVlabs/ProtoMotions.

The deviations are estimates, except where a note says otherwise.  Combinations of joints in a
plane stay in this plane: a spine that curves out of the plane of the shoulders and hips is not
modelled.
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
    return between(joint(f'left_{part}'), joint(f'right_{part}'))


def displaced(
    start: Combination, tail: Combination, head: Combination, share: float
) -> Combination:
    """Return a combination, moved by a share of the way from a second to a third one."""
    weights = dict(start)
    for sign, end in ((1, head), (-1, tail)):
        for name, weight in end.items():
            weights[name] = weights.get(name, 0.0) + sign * share * weight
    return weights


HIPS, SHOULDERS, EARS, EYES = (middle(part) for part in ('hip', 'shoulder', 'ear', 'eye'))
MOUTH = between(joint('mouth_left'), joint('mouth_right'))
PELVIS = Joint(HIPS, 'midpoint of the hips, by definition')
# COCO has no neck: that of OpenPose, which hri_msgs follows, is computed from the shoulders.
NECK = Joint(SHOULDERS, 'midpoint of the shoulders, by definition')
# ANSUR II: 131 mm from tragion to the top of the head for men, 127 mm for women.  Face: the nasion
# is 77 and 72 mm above the mouth; that the eyes are some millimetres below it is an estimate.
EYES_ABOVE_MOUTH_MM, VERTEX_ABOVE_EAR_MM = 70.0, 129.0
HEAD_TOP = Joint(
    displaced(EARS, MOUTH, EYES, VERTEX_ABOVE_EAR_MM / EYES_ABOVE_MOUTH_MM),
    'ears + 129/70 of the way from mouth to eyes: 129 mm to the top of the head (ANSUR II), 70 mm '
    'from mouth to eyes (estimate, Face)',
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
        'midpoint of the knuckles of index and little finger, an estimate; 86 mm from the wrist '
        '(SMPL)',
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
        'hip of blazepose_33; hips of Human3.6M are 266 mm apart and at the height of the pelvis '
        '(H36M)',
        30.0,
    )
    joints: dict[str, Joint | None] = {'pelvis': PELVIS}
    for side in ('right', 'left'):
        joints |= {f'{side}_hip': on_side(hip, side), f'{side}_knee': None, f'{side}_ankle': None}
    joints |= {
        'spine': Joint(
            along_trunk(0.53),
            '0.53 of the way from hips to shoulders: 0.52 to 0.57 in four poses; 233 of 490 mm '
            'from pelvis to neck (H36M)',
            30.0,
        ),
        'neck': Joint(
            along_trunk(1.11),
            '1.11 of the way from hips to shoulders: 1.01 to 1.20 in four poses (H36M)',
            30.0,
        ),
        'head': Joint(
            between(joint('nose'), EARS),
            'midpoint of nose and ears, an estimate; halfway between neck and top of the head '
            '(H36M)',
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
    neck = Joint(
        SHOULDERS,
        'midpoint of the shoulders; 4 to 14 mm from it in six poses of the data set (Panoptic)',
        5.0,
    )
    joints: dict[str, Joint | None] = {'neck': neck, 'nose': None, 'pelvis': PELVIS}
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
        description='CMU Panoptic Studio: coco_17 with neck and pelvis (Panoptic)',
    )


def _smpl_24() -> SkeletonDefinition:
    of_rest_pose = 'of the way from hips to shoulders, as in the mean body at rest (SMPL)'
    # SMPL: neck, head and the top of the head are 62, 127 and 330 mm above the shoulders; the ears
    # are 129 mm below the top (ANSUR II).
    of_the_neck = 'of the way from shoulders to ears (SMPL, ANSUR II)'
    sides = ('left', 'right')
    hip = Joint(
        joint('*_hip'),
        'hip of blazepose_33; hips of SMPL are 137 mm apart, 91 mm below the pelvis (SMPL)',
        40.0,
    )
    foot = Joint(
        _sole('*', 0.71),
        '0.71 of the way from heel to toes (SMPL): behind the ball of the foot, which is at 0.74 '
        'of its length (ANSUR II)',
        25.0,
    )
    collar = Joint(
        between(along_trunk(0.94), joint('*_shoulder'), 0.46),
        '0.46 of the way from the trunk, at 0.94 of its height, to the shoulder (SMPL)',
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
    joints['neck'] = Joint(along_neck(0.31), f'0.31 {of_the_neck}', 25.0)
    joints |= {f'{side}_collar': on_side(collar, side) for side in sides}
    joints['head'] = Joint(along_neck(0.63), f'0.63 {of_the_neck}', 25.0)
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
        description='the 24 joints of the body model SMPL',
    )


_OF_KINECT = 'estimate, checked with example frames (Kinect SDK)'


def _kinectv2_25() -> SkeletonDefinition:
    # In the two example frames, spine_base is level with the hips, spine_mid at 0.58 of the way
    # from spine_base to spine_shoulder, neck 73 mm and head 194 to 228 mm above the latter.
    # Spine_base and spine_shoulder are 530 and 539 mm apart, like hips and shoulders in SMPL
    # (541 mm), although the shoulders of Kinect are 51 and 60 mm below spine_shoulder.  In one
    # frame, the hands are 94 and 98 mm from the wrists, and the feet 108 mm from the ankles.
    joints: dict[str, Joint | None] = {
        'spine_base': Joint(HIPS, f'midpoint of the hips; {_OF_KINECT}', 30.0),
        'spine_mid': Joint(
            along_trunk(0.58), f'0.58 of the way from hips to shoulders; {_OF_KINECT}', 30.0
        ),
        'neck': Joint(
            along_neck(0.36), f'0.36 of the way from shoulders to ears; {_OF_KINECT}', 25.0
        ),
        'head': Joint(EARS, f'midpoint of the ears; {_OF_KINECT}', 25.0),
    }
    palm = Joint(
        between(joint('*_wrist'), _knuckles('*'), 1.1),
        f'wrist + 1.1 of the way to the knuckles; {_OF_KINECT}',
        20.0,
    )
    for side in ('left', 'right'):
        joints |= {f'{side}_{part}': None for part in ('shoulder', 'elbow', 'wrist')}
        joints[f'{side}_hand'] = on_side(palm, side)
    foot = Joint(_sole('*', 0.65), f'0.65 of the way from heel to toes; {_OF_KINECT}', 25.0)
    for side in ('left', 'right'):
        joints |= {f'{side}_{part}': None for part in ('hip', 'knee', 'ankle')}
        joints[f'{side}_foot'] = on_side(foot, side)
    joints['spine_shoulder'] = Joint(SHOULDERS, f'midpoint of the shoulders; {_OF_KINECT}', 35.0)
    tip = Joint(
        between(joint('*_wrist'), _knuckles('*'), 187 / 86),
        'wrist + 187/86 of the way to the knuckles: 187 mm to the tip (ANSUR II), 86 mm to the '
        'knuckles (estimate)',
        40.0,
    )
    thumb = Joint(
        joint('*_thumb'), 'thumb of blazepose_33, which may not be its tip; estimate', 25.0
    )
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
