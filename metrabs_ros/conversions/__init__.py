"""Conversions between arrays and ROS messages, without imports of message packages."""
