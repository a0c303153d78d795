"""What all networks share to run: backend selection, the engine cache, OpenVINO."""
