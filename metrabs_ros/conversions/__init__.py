"""Conversions between arrays and the contents of ROS messages, without importing messages."""
