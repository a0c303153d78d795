"""The documentation has the latest results of the benchmarks."""

from __future__ import annotations

import table


def test_the_accuracy_page_has_the_latest_results():
    text = table.ACCURACY_PAGE.read_text()
    assert table.with_accuracy_tables(text) == text, 'run benchmarks/table.py'


def test_all_rows_of_a_table_have_as_many_cells_as_its_header():
    header, rows = 0, 0
    for line in table.accuracy_tables():
        cells = line.count('|')
        header = (header or cells) if cells else 0
        rows += cells > 0
        assert cells == header, line
    assert rows > 10
