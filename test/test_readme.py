"""What the README says was measured is what was measured."""

from __future__ import annotations

import importlib.util
import pathlib

PROJECT = pathlib.Path(__file__).parents[1]


def test_the_tables_are_those_of_the_last_results():
    spec = importlib.util.spec_from_file_location('table', PROJECT / 'benchmarks' / 'table.py')
    table = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(table)
    text = (PROJECT / 'README.md').read_text()
    assert text == table.with_tables(text), 'run benchmarks/table.py'
