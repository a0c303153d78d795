"""BlazePose: networks, regions of interest, crops, detector and estimator."""
