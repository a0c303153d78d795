"""Tracking: detection scheduling, association, joint filtering and bone lengths."""
