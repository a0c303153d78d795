"""Access rules for HTTP requests, by the Host and Origin headers."""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import socket

DEFAULT_HOST = '127.0.0.1'
HOST_HEADER = re.compile(r'(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?')
"""Host name, IPv4 address, or IPv6 address in brackets; optional port."""
HTTP_PORT = 80


class Refused(ValueError):  # noqa: N818
    """A request is not permitted; the message states the reason."""


@dataclasses.dataclass(frozen=True)
class AccessRules:
    """
    Host names and addresses under which the view may be requested.

    Any web page can make a browser send requests to the view.  Such a request has the address of
    that page in Origin.  With DNS rebinding, where a host name of the page's owner resolves to
    this machine, it has that name in Host.  Both are rejected.  An IP address in Host excludes
    DNS rebinding.

    Parameters
    ----------
    names
        Permitted host names in lower case.
    is_open
        Whether the server listens on other interfaces than the loopback interface, so that any
        IP address is permitted in Host.
    """

    names: frozenset[str]
    is_open: bool

    @classmethod
    def listening_on(cls, host: str) -> AccessRules:
        """Return the rules of a server that listens on an address or a host name."""
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
        Return the host name or address in a Host header; IPv6 addresses have brackets.

        Raises
        ------
        Refused
            If the header is invalid or the host is not permitted.
        """
        matched = HOST_HEADER.fullmatch(header or '')
        if matched is None:
            raise Refused('the request has no valid Host header')
        host = matched[1].lower()
        address = _ip_address(host.strip('[]'))
        if address is None and host not in self.names:
            raise Refused('this host name is not permitted')
        if address is not None and not (self.is_open or address.is_loopback):
            raise Refused('the view is available on the loopback interface only')
        return host

    def check_origin(self, origin: str | None, host: str, page_port: int) -> None:
        """
        Check that a request does not come from another web page.

        Parameters
        ----------
        origin
            Origin header; None for requests that are not sent by a script.
        host
            Host name or address in the Host header.
        page_port
            Port of the view's page.

        Raises
        ------
        Refused
            If the request comes from a page other than the view's own.
        """
        if origin is None:
            return
        allowed = {f'http://{host}:{page_port}'}
        if page_port == HTTP_PORT:
            allowed.add(f'http://{host}')
        if origin.lower() not in allowed:
            raise Refused(
                'the request comes from a page of another origin; '
                f'if ports are forwarded, the page must keep its port number {page_port}'
            )


def _ip_address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None
