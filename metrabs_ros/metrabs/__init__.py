"""MeTRAbs: network, checkpoint and estimator."""
