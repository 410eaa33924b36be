"""Names and addresses of network links. They follow from ids, since a link's name has at most 15 characters.

segment subnet-0123456789abcdef0    bridge sn-0123456789ab, its plug sl-0123456789ab (root namespace)
                                    the router's leg in it: sn-0123456789ab (the router's namespace)
port    eni-0123456789abcdef0       tap eni-0123456789a (root namespace)
        of a translator             its namespace vpc-0123456789abcdef0.eni-0123456789abcdef0
router  vpc-0123456789abcdef0       uplink (the router's namespace), vpc-0123456789a (the edge)
peering pcx-0123456789abcdef0       pcx-0123456789a (both routers' namespaces)
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from ipaddress import IPv6Address

NAME_LIMIT = 15  # IFNAMSIZ without the final zero
MTU_BYTES = 1500

UPLINK = "uplink"
EDGE_TO_HOST = "host"
EDGE_TO_LAN = "lan"  # into the public bridge, where there is one
TAPS = "eni-*"  # what the links of the root namespace are called, in nft's words
PLUGS = "sl-*"

# The two ends of a cable (IPv6, on the link alone): the edge's and the other's; of two routers, by name.
NEAR_SIDE = "fe80::1"
FAR_SIDE = "fe80::2"


def bridge_name(segment: str) -> str:
    return "sn-" + _digits(segment)


def plug_name(segment: str) -> str:
    """The bridge's end of the cable to the router."""
    return "sl-" + _digits(segment)


def leg_name(segment: str) -> str:
    """The router's end of that cable."""
    return bridge_name(segment)


@lru_cache(maxsize=4096)
def leg_mac(segment: str) -> str:
    """Guests keep it in their ARP caches, so it must be the same when the leg is made anew."""
    digest = hashlib.sha256(segment.encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x0A, *digest[:5]))


def tap_name(port: str) -> str:
    return port[:NAME_LIMIT]


def uplink_name(router: str) -> str:
    """The edge's end of a router's uplink."""
    return router[:NAME_LIMIT]


def peer_name(peering: str) -> str:
    """Each end of the cable between two routers, in the router's namespace."""
    return peering[:NAME_LIMIT]


def peer_address(of: str, to: str) -> str:
    """The address of router `of` on its cable to router `to`."""
    return NEAR_SIDE if of < to else FAR_SIDE


def leg_address(segment: str) -> str:
    """The router's link-local address on a segment, which guests know it by: made of the leg's MAC (RFC 4291)."""
    octets = bytes.fromhex(leg_mac(segment).replace(":", ""))
    return str(IPv6Address(b"\xfe\x80" + bytes(6) + bytes([octets[0] ^ 2]) + octets[1:3] + b"\xff\xfe" + octets[3:]))


def translator_name(router: str, port: str) -> str:
    """The namespace behind a port that has no machine."""
    return f"{router}.{port}"


def lan_plug_name(deployment: str) -> str:
    """The public bridge's end of the cable to the edge."""
    return f"orl-{deployment}"


def edge_name(deployment: str) -> str:
    """The edge's namespace, and the host's end of the cable to it."""
    return f"orc-{deployment}"


def _digits(name: str) -> str:
    return name.rpartition("-")[2][:12]
