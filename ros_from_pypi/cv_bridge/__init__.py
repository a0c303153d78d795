"""Replacement for cv_bridge: conversion between ROS image messages and OpenCV images."""

from .boost.cv_bridge_boost import cvtColorForDisplay, getCvType
from .core import CvBridge, CvBridgeError

__all__ = ['CvBridge', 'CvBridgeError', 'cvtColorForDisplay', 'getCvType']
