"""OpenVINO is imported without telemetry."""

from __future__ import annotations

import subprocess
import sys


def test_openvino_is_imported_without_its_telemetry():
    program = (
        'import sys, threading\n'
        'from metrabs_ros.backends.openvino import create_core\n'
        'create_core()\n'
        'assert not [name for name, own in sys.modules.items() if own and "telemetry." in name]\n'
        'assert threading.active_count() == 1, threading.enumerate()\n'
    )
    subprocess.run([sys.executable, '-c', program], check=True)
