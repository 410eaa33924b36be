"""Builds, imports, and AMI ids of existing code."""

from __future__ import annotations

import re
from dataclasses import replace

from orchestrator.api.ec2.images import visible
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, invalid_parameter
from orchestrator.model.image import Build, Image, ImageAlias
from orchestrator.model.resource import EVERY_REGION

FORMATS = ("qcow2", "raw", "vmdk", "vhd", "vhdx", "ova")

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,62}", re.ASCII)


@operation("BuildImage", service="orc", writes=True)
def build_image(call: Call, *, name: str) -> Answer:
    recipes = call.host.recipes()
    if name not in recipes:
        raise invalid_parameter("Name", name, f"one of the recipes {', '.join(recipes) or '(there are none)'}")
    for build in call.tx.all(Build, account=call.account):
        if build.name == name and build.state in ("pending", "running"):
            return {"Build": _build_view(build)}  # it is under way already
    return _begin(call, Build(id=ids.mint("build"), name=name, created=call.now))


@operation("ImportImage", service="orc", writes=True)
def import_image(call: Call, *, name: str, upload_id: str, format: str, login_user: str | None = None) -> Answer:
    if format not in FORMATS:
        raise invalid_parameter("Format", format, f"one of {', '.join(FORMATS)}")
    if not _NAME.fullmatch(name):
        raise invalid_parameter("Name", name, "lower case letters, digits, '.' and '-', at most 63")
    ids.check("upload", upload_id)
    return _begin(
        call,
        Build(
            id=ids.mint("build"),
            name=name,
            source="upload",
            upload_id=upload_id,
            file_format=format,
            login_user=login_user or "",
            created=call.now,
        ),
    )


def _begin(call: Call, build: Build) -> Answer:
    kept = call.tx.put(replace(build, account=call.account, region=EVERY_REGION))
    call.tx.wake(kept)
    return {"Build": _build_view(kept)}


@operation("DescribeBuilds", service="orc")
def describe_builds(call: Call, *, build_ids: list[str] | None = None) -> Answer:
    found = call.find_all(Build, "build", build_ids) if build_ids else call.mine(Build)
    return {"Builds": [_build_view(build) for build in sorted(found, key=lambda b: b.created, reverse=True)]}


def _build_view(build: Build) -> Answer:
    return {
        "BuildId": build.id,
        "Name": build.name,
        "Source": build.source,
        "State": build.state,
        "Phase": build.phase,
        "Message": build.message,
        "ImageId": build.image_id or None,
        "Started": build.created,
        "Finished": build.finished,
    }


@operation("ListRecipes", service="orc")
def list_recipes(call: Call) -> Answer:
    return {"Recipes": call.host.recipes()}


@operation("MapImage", service="orc", writes=True)
def map_image(call: Call, *, image_id: str, name: str) -> Answer:
    ids.check("ami", image_id)
    if call.tx.get(Image, image_id) is not None:
        raise invalid_parameter("ImageId", image_id, "an AMI id that is no image here yet")
    if not any(visible(call, image) for image in call.tx.all(Image, name=name)):
        known = sorted({image.name for image in call.tx.all(Image) if visible(call, image)})
        raise EC2Error(
            "InvalidAMIName.NotFound",
            f"There is no image named '{name}'; there are {', '.join(known) or 'none: build one first'}",
        )
    old = call.tx.get(ImageAlias, image_id)
    if old is not None and old.account != call.account:
        raise invalid_parameter("ImageId", image_id, "an AMI id that no other account has mapped")
    alias = ImageAlias(id=image_id, name=name, account=call.account, region=EVERY_REGION, created=call.now)
    call.tx.put(replace(old, name=name) if old else alias)
    return {"ImageMap": {"ImageId": image_id, "Name": name}}


@operation("UnmapImage", service="orc", writes=True)
def unmap_image(call: Call, *, image_id: str) -> Answer:
    call.tx.delete(call.find(ImageAlias, "ami", image_id))
    return {}


@operation("DescribeImageMaps", service="orc")
def describe_image_maps(call: Call) -> Answer:
    return {"ImageMaps": [{"ImageId": alias.id, "Name": alias.name} for alias in call.mine(ImageAlias)]}
