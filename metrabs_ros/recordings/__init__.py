"""Annotation of bags, videos and image folders, without ROS."""
