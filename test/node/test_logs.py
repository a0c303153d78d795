"""What the ROS-free half says stands in the node's log, as loud as it was said."""

from __future__ import annotations

import logging

from metrabs_ros.node.logs import NodeLog


class Log:
    def __init__(self):
        self.lines = []

    def __getattr__(self, severity):
        return lambda line: self.lines.append((severity, line))


def test_records_keep_their_severity():
    log, python = Log(), logging.Logger('of a test')
    python.addHandler(NodeLog(log))
    python.error('it %s', 'failed')
    python.warning('careful')
    python.info('by the way')
    python.debug('all the details')
    assert log.lines == [('error', 'it failed'), ('warning', 'careful'), ('info', 'by the way')]
