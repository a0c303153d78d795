"""Kinematics of the ROS4HRI human: URDF, joint angles from joint positions, posture, lengths."""
