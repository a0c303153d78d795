"""Absolute localisation of root-relative poses in the camera frame."""
