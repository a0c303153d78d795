"""MoveNet MultiPose: boxes and 17 keypoints of all people in an image, in one pass."""
