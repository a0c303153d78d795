"""Make the modules of benchmarks/ importable."""

from __future__ import annotations

import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).parents[2] / 'benchmarks'))
