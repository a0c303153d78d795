"""BlazePose: network, regions of interest, crops, agreement with keypoints, estimator."""
