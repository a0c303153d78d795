"""MeTRAbs: network, checkpoint, crops, augmentation, estimator, one engine per backend."""
