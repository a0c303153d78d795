"""Code shared by all networks to run: engine selection, the engine cache and OpenVINO."""
