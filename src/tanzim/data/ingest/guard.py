"""Which addresses may be connected to: public ones, and those that ``data.allow_hosts`` names."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class NotPublic(OSError):
    """The host has no address that may be connected to."""

    def __init__(self, host: str, addresses: Sequence[str]) -> None:
        found = f" ({', '.join(addresses[:3])})" if list(addresses) != [host] else ""
        super().__init__(f"{host}{found} is not a public address")
        self.host = host


def _meant(address: Address) -> Iterator[Address]:
    """Yield an address, and the IPv4 address that an IPv6 one may stand for."""
    yield address
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            yield address.ipv4_mapped
        if address.sixtofour:
            yield address.sixtofour
        if address.teredo:
            yield from address.teredo
        if address in _NAT64:
            yield ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)


def is_public(text: str) -> bool:
    """Tell whether an address is one of the internet: not private, loopback, link-local or reserved."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None
    return all(
        one.is_global and not one.is_multicast and not one.is_unspecified
        for one in _meant(address)
        if not (mapped and one is address)
    )


@dataclass(frozen=True, slots=True)
class Guard:
    """Connects to addresses that are public or allowed.

    What is checked is the very address that is connected to, so that a name that first stands for a public
    address and then for a local one ("DNS rebinding") gains nothing.

    Args:
        allow: hosts, addresses and networks that may be local.

    """

    allow: tuple[str, ...] = ()

    def allows(self, host: str, address: str) -> bool:
        """Tell whether ``host``, found at ``address``, may be connected to."""
        if is_public(address):
            return True
        for entry in self.allow:
            if entry.lower().rstrip(".") == host.lower().rstrip("."):
                return True
            try:
                network = ipaddress.ip_network(entry)
            except ValueError:
                continue
            if ipaddress.ip_address(address.partition("%")[0]) in network:
                return True
        return False

    def connect(self, host: str, port: int, seconds: float) -> socket.socket:
        """Connect to a host.

        Args:
            host: a name, or an address (IPv6 without brackets).
            port: of TCP.
            seconds: the longest to wait for one address, and later for each answer.

        Raises:
            NotPublic: no address of the host may be connected to.
            OSError: the name is unknown, or nothing answers.

        """
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = [str(place[0]) for *_, place in found]
        allowed = [one for one, address in zip(found, addresses, strict=True) if self.allows(host, address)]
        if not allowed:
            raise NotPublic(host, list(dict.fromkeys(addresses)))
        fault: OSError | None = None
        for family, kind, protocol, _, place in allowed:
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(seconds)
                connection.connect(place)
            except OSError as error:
                connection.close()
                fault = error
            else:
                return connection
        assert fault is not None
        raise fault
