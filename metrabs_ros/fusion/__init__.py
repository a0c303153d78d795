"""Fusion of the people that several cameras see: one set of people in the world frame."""
