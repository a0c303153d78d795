"""The backlog is limited in size, and all readers share it."""

from __future__ import annotations

import threading

import pytest

from metrabs_ros.view.backlog import Backlog, Reader, memory_limit_bytes


def read_all(reader):
    """Return all available blocks."""
    blocks = []
    while (block := reader.read(0)) is not None:
        blocks.append(block)
    return blocks


def test_each_reader_gets_all_buffered_blocks():
    backlog = Backlog(100)
    for i in range(3):
        backlog.append(b'%d' % i)
    readers = [Reader(backlog) for _ in range(2)]
    assert [read_all(reader) for reader in readers] == [[b'0', b'1', b'2']] * 2
    backlog.append(b'3')
    assert [read_all(reader) for reader in readers] == [[b'3']] * 2


def test_the_oldest_blocks_are_dropped_at_the_limit():
    backlog = Backlog(10)
    for i in range(1000):
        backlog.append(b'%04d' % i)
    assert backlog.size_bytes <= 10
    assert read_all(Reader(backlog)) == [b'0998', b'0999']
    backlog.append(bytes(100))
    assert read_all(Reader(backlog)) == [bytes(100)]


def test_a_slow_reader_continues_with_the_newest_block():
    backlog = Backlog(10)
    backlog.append(b'0000')
    reader = Reader(backlog)
    assert reader.read(0) == b'0000'
    for i in range(1, 10):
        backlog.append(b'%04d' % i)
    assert read_all(reader) == [b'0009']


def test_a_reader_waits_for_the_next_block():
    backlog = Backlog(10)
    reader = Reader(backlog)
    assert reader.read(0.01) is None
    threading.Timer(0.05, backlog.append, [b'late']).start()
    assert reader.read(60) == b'late'
    backlog.complete()
    with pytest.raises(EOFError):
        reader.read(60)


@pytest.mark.parametrize(
    ('text', 'expected'),
    [
        ('256MiB', 256 << 20),
        ('2GB', 2 * 10**9),
        ('1.5 GiB', 3 << 29),
        ('4194304B', 1 << 22),
        ('2000kB', 2_000_000),
    ],
)
def test_amounts_of_memory_are_parsed(text, expected):
    assert memory_limit_bytes(text) == expected


def test_percentages_of_memory_are_parsed():
    assert 0 < memory_limit_bytes('25%') == pytest.approx(memory_limit_bytes('50%') / 2, rel=0.01)


@pytest.mark.parametrize(
    'text', ['', 'all', '-1GB', '1', '1 MX', '1KiB', 'nanMB', '1e9GB', '0%', '5\nGB', 'MiB' * 1000]
)
def test_invalid_amounts_are_rejected_with_a_short_message(text):
    with pytest.raises(ValueError, match='memory limit') as caught:
        memory_limit_bytes(text)
    assert len(str(caught.value)) < 250


def test_a_huge_limit_does_not_overflow():
    assert memory_limit_bytes('9' * 300 + 'TB') == 2**62
