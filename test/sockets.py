"""TCP addresses on which processes listen, from /proc."""

from __future__ import annotations

import ipaddress
import pathlib
import struct

LISTENING = '0A'


def listening_addresses(pids):
    """Return the TCP addresses and ports on which at least one of the processes listens."""
    inodes = {inode for pid in pids for inode in _socket_inodes(pid)}
    addresses = set()
    for table in ('tcp', 'tcp6'):
        file = pathlib.Path('/proc/net') / table
        for line in file.read_text().splitlines()[1:] if file.exists() else ():
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in inodes:
                address, port = fields[1].split(':')
                addresses.add((_address(address), int(port, 16)))
    return addresses


def _socket_inodes(pid):
    for link in pathlib.Path(f'/proc/{pid}/fd').glob('*'):
        try:
            target = str(link.readlink())
        except OSError:  # The file has just been closed.
            continue
        if target.startswith('socket:['):
            yield target[len('socket:[') : -1]


def _address(text):
    """Parse an address of hexadecimal 32-bit numbers in native byte order."""
    words = [int(text[i : i + 8], 16) for i in range(0, len(text), 8)]
    return ipaddress.ip_address(struct.pack(f'={len(words)}I', *words))
