"""Annotation of bags, videos and image files without ROS."""
