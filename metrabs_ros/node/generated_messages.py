"""Generated classes of the published message types."""

from geometry_msgs.msg import Point, TransformStamped, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from metrabs_ros.conversions.message_types import MessageTypes
from metrabs_ros.msg import ImagePoint, Skeleton, SkeletonArray

TYPES = MessageTypes(
    Header=Header,
    Point=Point,
    Vector3=Vector3,
    ColorRGBA=ColorRGBA,
    TransformStamped=TransformStamped,
    Marker=Marker,
    MarkerArray=MarkerArray,
    ImagePoint=ImagePoint,
    Skeleton=Skeleton,
    SkeletonArray=SkeletonArray,
)
