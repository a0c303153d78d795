"""Which HTTP requests may read the view, by their Host and Origin headers."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import socket

DEFAULT_HOST = '127.0.0.1'
HOST_HEADER = re.compile(r'(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?')
"""A name, an IPv4 address or an IPv6 address in brackets, and a port."""
HTTP_PORT = 80


class Refused(ValueError):  # noqa: N818
    """A request must not be answered; the message says why."""


@dataclasses.dataclass(frozen=True)
class AccessRules:
    """
    The names under which the view may be opened.

    A web page can make a browser send requests to any address that the browser reaches.  Such a
    request has the page's own address in Origin.  With DNS rebinding, where a name of the page's
    owner resolves to this machine, it has that name in Host.  Both are refused.  An IP address in
    Host excludes DNS rebinding.

    Parameters
    ----------
    names
        Host names, in lower case.
    is_open
        Whether the server listens on more than the loopback interface, so that any IP address
        may stand in Host.
    """

    names: frozenset[str]
    is_open: bool

    @classmethod
    def listening_on(cls, host: str) -> AccessRules:
        """Return the rules for a server that listens on an address or a name."""
        address = _ip_address(host)
        if host == 'localhost' or (address is not None and address.is_loopback):
            return cls(frozenset({'localhost'}), is_open=False)
        machine = socket.gethostname().lower()
        names = {'localhost', machine, f'{machine}.local'}
        if address is None:
            names.add(host.lower())
        return cls(frozenset(names), is_open=True)

    def host_of(self, header: str | None) -> str:
        """
        Return the name or address in a Host header, IPv6 in brackets.

        Raises
        ------
        Refused
            If the view must not be opened under it.
        """
        matched = HOST_HEADER.fullmatch(header or '')
        if matched is None:
            raise Refused('the request has no valid Host header')
        host = matched[1].lower()
        address = _ip_address(host.strip('[]'))
        if address is None and host not in self.names:
            raise Refused('the view is not served under this host name')
        if address is not None and not (self.is_open or address.is_loopback):
            raise Refused('the view is only served on the loopback interface')
        return host

    def check_origin(self, origin: str | None, host: str, page_port: int) -> None:
        """
        Raise `Refused` for a request by a web page other than the view's own.

        Parameters
        ----------
        origin
            The header; None for requests that are not sent by a page's script.
        host
            The name or address under which the data was requested.
        page_port
            The port of the view's page.
        """
        if origin is None:
            return
        allowed = {f'http://{host}:{page_port}'}
        if page_port == HTTP_PORT:
            allowed.add(f'http://{host}')
        if origin.lower() not in allowed:
            raise Refused(
                'the request comes from a page of another origin; '
                f'ports that are forwarded must keep their numbers, that of the page {page_port}'
            )


def _ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
