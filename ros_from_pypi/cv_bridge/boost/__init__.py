"""The place where a ROS install has the compiled part of cv_bridge."""
