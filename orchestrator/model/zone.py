"""The ids of Availability Zones: us-east-1a is use1-az1.

Amazon maps letters to ids per account, so that no zone fills up first. Here `a` is az1 for everyone.
"""

from __future__ import annotations

_DIRECTIONS = {
    "north": "n",
    "northeast": "ne",
    "east": "e",
    "southeast": "se",
    "south": "s",
    "southwest": "sw",
    "west": "w",
    "northwest": "nw",
    "central": "c",
    "gov": "g",
    "iso": "i",
}


def zone_id(zone: str) -> str:
    """`ap-southeast-2b` is `apse2-az2`. `zone` is a region and a letter."""
    region, letter = zone[:-1], zone[-1]
    return "".join(_DIRECTIONS.get(part, part) for part in region.split("-")) + f"-az{ord(letter) - ord('a') + 1}"
