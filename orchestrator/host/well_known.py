"""Addresses that mean the same in every network."""

from __future__ import annotations

from ipaddress import IPv4Network

METADATA_ADDRESS = "169.254.169.254"
METADATA_IPV6_ADDRESS = "fd00:ec2::254"
RESOLVER_ADDRESS = "169.254.169.253"
RESOLVER_IPV6_ADDRESS = "fd00:ec2::253"
SERVICES_IPV6 = "fd00:ec2::/32"  # where both are: nobody else may claim to be there
LINK_LOCAL = "169.254.0.0/16"
IPV6_LINK_LOCAL = "fe80::/10"
UPLINK_RANGE = IPv4Network("198.18.0.0/15")  # the cables between routers and edge: RFC 2544, never routed
