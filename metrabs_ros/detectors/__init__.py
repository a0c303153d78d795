"""Person detectors that return boxes."""
