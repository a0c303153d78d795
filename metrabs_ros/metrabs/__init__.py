"""MeTRAbs: network, checkpoint, estimator; crops, augmentation and engines, which NLF shares."""
