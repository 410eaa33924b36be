"""Names and hardware addresses of network links. They follow from ids, since a link's name has at most 15 characters.

segment subnet-0123456789abcdef0    bridge sn-0123456789ab, its plug sl-0123456789ab (root namespace)
                                    the router's leg in it: sn-0123456789ab (the router's namespace)
port    eni-0123456789abcdef0       tap eni-0123456789a (root namespace)
router  vpc-0123456789abcdef0       uplink (the router's namespace), vpc-0123456789a (the edge)
"""

from __future__ import annotations

import hashlib

NAME_LIMIT = 15  # IFNAMSIZ without the final zero
MTU_BYTES = 1500

UPLINK = "uplink"
EDGE_TO_HOST = "host"


def bridge_name(segment: str) -> str:
    return "sn-" + _digits(segment)


def plug_name(segment: str) -> str:
    """The bridge's end of the cable to the router."""
    return "sl-" + _digits(segment)


def leg_name(segment: str) -> str:
    """The router's end of that cable."""
    return bridge_name(segment)


def leg_mac(segment: str) -> str:
    """Guests keep it in their ARP caches, so it must be the same when the leg is made anew."""
    digest = hashlib.sha256(segment.encode()).digest()
    return ":".join(f"{octet:02x}" for octet in (0x0A, *digest[:5]))


def tap_name(port: str) -> str:
    return port[:NAME_LIMIT]


def uplink_name(router: str) -> str:
    """The edge's end of a router's uplink."""
    return router[:NAME_LIMIT]


def edge_name(deployment: str) -> str:
    """The edge's namespace, and the host's end of the cable to it."""
    return f"orc-{deployment}"


def _digits(name: str) -> str:
    return name.rpartition("-")[2][:12]
