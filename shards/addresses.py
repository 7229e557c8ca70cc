"""Who is who by their addresses."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

Peer = tuple[str, int]
"""Where somebody has connected from: an address, as `plain` gives it, and a port. Hosts give out the same ports."""

_OWN_NETWORK = 64
"""Whoever has one address of IPv6 has all of its /64."""


def network_of(address: str) -> str:
    """Name who is at an address: those of one network are one. What is no address is named by itself."""
    known = _read(address)
    if known is None:
        return address
    return str(ip_network((known, _OWN_NETWORK), strict=False)) if isinstance(known, IPv6Address) else str(known)


def is_loopback(address: str) -> bool:
    """Tell whether an address is this host's own, to itself."""
    known = _read(address)
    return known is not None and known.is_loopback


def plain(address: str) -> str:
    """Give an address as it is always written: one of IPv4 in IPv6's clothes as one of IPv4."""
    known = _read(address)
    return address if known is None else str(known)


def _read(address: str) -> IPv4Address | IPv6Address | None:
    try:
        known = ip_address(address)
    except ValueError:
        return None
    return known.ipv4_mapped or known if isinstance(known, IPv6Address) else known
