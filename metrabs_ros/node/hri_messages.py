"""Message types of ROS4HRI, which are imported only if they are used."""

from __future__ import annotations

from geometry_msgs.msg import PointStamped, TransformStamped, TwistStamped
from sensor_msgs.msg import JointState
from std_msgs.msg import Header, String

from metrabs_ros.conversions.message_types import HriMessageTypes


def load_hri_types() -> HriMessageTypes:
    """
    Return the generated classes.

    Raises
    ------
    ImportError
        If `hri_msgs` is not installed.
    """
    try:
        from hri_msgs.msg import (
            BodyPosture,
            IdsList,
            NormalizedPointOfInterest2D,
            NormalizedRegionOfInterest2D,
            Skeleton2D,
        )
    except ImportError as error:
        raise ImportError(
            'the parameter hri is true, but the package hri_msgs is not installed; install it '
            'with apt install ros-$ROS_DISTRO-hri-msgs, or set hri to false'
        ) from error
    return HriMessageTypes(
        Header=Header,
        IdsList=IdsList,
        NormalizedPointOfInterest2D=NormalizedPointOfInterest2D,
        NormalizedRegionOfInterest2D=NormalizedRegionOfInterest2D,
        Skeleton2D=Skeleton2D,
        BodyPosture=BodyPosture,
        JointState=JointState,
        PointStamped=PointStamped,
        TwistStamped=TwistStamped,
        String=String,
        TransformStamped=TransformStamped,
    )
