"""Parameters of the fusion node: name, default, description and range."""

from __future__ import annotations

import dataclasses

from metrabs_ros.node.parameters import setting

LONGEST_CAMERA_TOPIC = 'pose/skeletons'
"""Longest topic name within the namespace of a camera."""


@dataclasses.dataclass(frozen=True)
class FusionSettings:
    """Values of all parameters of the fusion node."""

    autostart: bool = setting(
        True, 'Configure and activate the node automatically at startup.', fixed=True
    )
    cameras: tuple[str, ...] = setting(
        ('',),
        'Namespaces of the cameras (topics: CAMERA/pose/skeletons and CAMERA/camera_info).',
        fixed=True,
    )
    fixed_frame: str = setting(
        'map',
        'Frame of the published people, with the z axis pointing up. TF must contain the poses '
        'of all cameras in it.',
        fixed=True,
    )
    rectified: bool = setting(
        False,
        'Whether the pose nodes process rectified images, so that the matrix P of camera_info '
        'is used.',
    )
    tf_timeout: float = setting(0.1, 'Timeout for transforms, in seconds.', low=0.0, high=10.0)
    max_lost: float = setting(
        1.0,
        'Time for which people that no camera sees keep their id, in seconds.',
        low=0.0,
        high=60.0,
    )
    min_hits: int = setting(
        3, 'Number of frame sets with a person that confirm it.', low=1, high=100
    )
    smoothing: float = setting(
        0.5,
        'Strength of the temporal filter of the joints; 0: no filter.',
        low=0.0,
        high=1.0,
    )
    rays: bool = setting(
        False, 'Whether the markers include lines from the cameras to the people they see.'
    )
    tf: str = setting(
        'person',
        'Published TF frames. person: one frame per person; joints: additionally one frame per '
        'joint.',
        choices=('none', 'person', 'joints'),
    )
    tf_prefix: str = setting(
        '', "Prefix of the published TF frames; '': namespace of the node, if any."
    )
    hri: bool = setting(
        False,
        'Publish people as ROS4HRI bodies below /humans/bodies (REP 155); requires hri_msgs and '
        'urdf_parser_py.',
        fixed=True,
    )
    hri_tf: bool = setting(
        False, 'With hri: publish the TF frames of all links of the bodies, not only body_<id>.'
    )
