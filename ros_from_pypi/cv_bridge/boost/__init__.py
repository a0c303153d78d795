"""Package that contains the compiled part of cv_bridge in a ROS installation."""
