"""Detectors of person boxes: their interface, ONNX networks and ultralytics models."""
