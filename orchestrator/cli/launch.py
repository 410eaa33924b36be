"""`orc run`: what people call things, turned into one RunInstances."""

from __future__ import annotations

import os
import sys
from base64 import b64encode
from pathlib import Path
from typing import Any

import click

from orchestrator.cli.arguments import read_tag, with_client
from orchestrator.cli.client import Client, NotFound
from orchestrator.cli.instances import COLUMNS
from orchestrator.cli.output import note, output_option, print_listing
from orchestrator.cli.power import WAIT_TIMEOUT_S, wait_until
from orchestrator.cli.session import key_file

MAX_USER_DATA_BYTES = 16 * 1024  # EC2's limit, before base64
BAKE_TAG = "orc:bake"  # of images that `orc bake` has made: the name of their pipeline


@click.command()
@click.argument("image", metavar="IMAGE")
@click.option("-n", "--name", help="its name: the tag Name")
@click.option("-t", "--type", "instance_type", default="t3.micro", show_default=True, help="the instance type")
@click.option("-k", "--key", metavar="NAME", help="the key pair that may log in")
@click.option("-c", "--count", type=click.IntRange(min=1), default=1, show_default=True, help="how many")
@click.option(
    "--user-data", "user_data", metavar="FILE", help="a script or cloud-config for the first boot; - is stdin"
)
@click.option("-g", "--group", "groups", multiple=True, metavar="GROUP", help="a security group, by name or id")
@click.option("--subnet", metavar="ID", help="the subnet; its VPC's default one otherwise")
@click.option("--zone", help="the Availability Zone, or its letter")
@click.option("--private-ip", metavar="ADDRESS", help="its private address")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="a tag for the instance and its volume")
@click.option("--size", "size_gib", type=click.IntRange(min=1), metavar="GIB", help="the size of its root volume")
@click.option("--shutdown", type=click.Choice(["stop", "terminate"]), help="what a shutdown inside the guest means")
@click.option("--protect", is_flag=True, help="refuse to terminate it until this is taken back")
@click.option("--imds", type=click.Choice(["optional", "required"]), help="whether metadata needs a token (v2)")
@click.option("--dry-run", is_flag=True, help="only ask whether it would work")
@click.option("-w", "--wait", is_flag=True, help="until it is running")
@click.option("--ssh", "log_in", is_flag=True, help="wait until ssh answers, and log in")
@click.option("-i", "--identity", metavar="FILE", help="with --ssh: the private key, when it is not in the key store")
@click.option(
    "--timeout", "timeout_s", metavar="SECONDS", type=float, default=WAIT_TIMEOUT_S, show_default=True, help="how long"
)
@click.option("-q", "--quiet", is_flag=True, help="ids only")
@output_option
@with_client
def run(client: Client, image: str, *, wait: bool, log_in: bool, timeout_s: float, **options: Any) -> None:
    """Launch instances from IMAGE: an image's name, such as debian-12, or an AMI id.

    \b
    orc run debian-12 --name web-1 --key mine --ssh
    orc run tiny --count 3 --tag stage=test --wait
    """
    key, identity = options["key"], options["identity"]
    if log_in and options["count"] != 1:
        raise click.UsageError("--ssh logs into one instance: leave --count out")
    if log_in and not key:
        raise click.UsageError("--ssh needs --key; `orc key create NAME` makes one, `orc key ls` shows them")
    parameters = _parameters(client, image, options)
    launched = client.ec2("RunInstances", **parameters)["Instances"]
    ids = [instance["InstanceId"] for instance in launched]
    if options["quiet"]:
        for instance_id in ids:
            click.echo(instance_id)
    if key and not identity and not key_file(key).exists():
        note(f"the private half of '{key}' is not in the key store ({key_file(key)}): `orc ssh` will need -i FILE")
    if wait or log_in:
        wait_until(client, ids, "ssh" if log_in else "running", timeout_s)
        launched = client.instances(ids)
    if not options["quiet"] and not log_in:
        print_listing(launched, COLUMNS, options["output"])
    if log_in:
        from orchestrator.cli.guest import run_ssh

        run_ssh(client, launched[0], identity=identity)


def _parameters(client: Client, image: str, options: dict[str, Any]) -> dict[str, Any]:
    found = find_image(client, image) if not image.startswith("ami-") or options["size_gib"] else {"ImageId": image}
    parameters: dict[str, Any] = {
        "ImageId": image if image.startswith("ami-") else found["ImageId"],
        "InstanceType": options["instance_type"],
        "MinCount": options["count"],
        "MaxCount": options["count"],
        # A request that is sent twice, for whatever reason, launches once.
        "ClientToken": os.urandom(16).hex(),
        "KeyName": options["key"],
        "SubnetId": options["subnet"],
        "PrivateIpAddress": options["private_ip"],
        "InstanceInitiatedShutdownBehavior": options["shutdown"],
        "DisableApiTermination": options["protect"] or None,
        "DryRun": options["dry_run"] or None,
    }
    if options["user_data"]:
        parameters["UserData"] = b64encode(_read_user_data(options["user_data"])).decode()
    if options["groups"]:
        parameters["SecurityGroupIds"] = find_groups(client, options["groups"], subnet_id=options["subnet"])
    if zone := options["zone"]:
        zone = client.region + zone if len(zone) == 1 else zone
        parameters["Placement"] = {"AvailabilityZone": zone}
    if options["size_gib"]:
        device = found.get("RootDeviceName", "/dev/xvda")
        parameters["BlockDeviceMappings"] = [{"DeviceName": device, "Ebs": {"VolumeSize": options["size_gib"]}}]
    if options["imds"]:
        parameters["MetadataOptions"] = {"HttpTokens": options["imds"]}
    tags = [{"Key": "Name", "Value": options["name"]}] if options["name"] else []
    tags += [read_tag(word) for word in options["tags"]]
    if tags:
        parameters["TagSpecifications"] = [{"ResourceType": kind, "Tags": tags} for kind in ("instance", "volume")]
    return {name: value for name, value in parameters.items() if value is not None}


def _read_user_data(file: str) -> bytes:
    try:
        data = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise click.UsageError(f"--user-data: {file} cannot be read: {error.strerror}") from None
    if len(data) > MAX_USER_DATA_BYTES:
        raise click.UsageError(f"--user-data: {len(data)} bytes are too many: at most {MAX_USER_DATA_BYTES}")
    return data


def find_image(client: Client, name: str) -> dict[str, Any]:
    """The newest image of a name that can be launched, the newest that was baked under it, or the image with an id.
    Raises NotFound."""
    if name.startswith("ami-"):
        return dict(client.ec2("DescribeImages", ImageIds=[name])["Images"][0])
    for by in ("name", f"tag:{BAKE_TAG}"):
        filters = [{"Name": by, "Values": [name]}, {"Name": "state", "Values": ["available"]}]
        images = client.pages("DescribeImages", "Images", Filters=filters)
        if images:
            return max(images, key=lambda image: (str(image.get("CreationDate", "")), image["Name"]))
    recipes = client.orc("ListRecipes")["Recipes"]
    if name in recipes:
        raise NotFound(f"the image '{name}' has not been built yet: `orc image build {name}` does it")
    known = sorted({image["Name"] for image in client.pages("DescribeImages", "Images")})
    raise NotFound(
        f"there is no image '{name}'; there are {', '.join(known) or 'none'}, and `orc image build` can make "
        f"{', '.join(recipes) or 'none'}"
    )


def find_groups(client: Client, names: tuple[str, ...], *, subnet_id: str | None = None) -> list[str]:
    """Ids of security groups, given by id or by name in the subnet's VPC (the default VPC without one)."""
    ids = [name for name in names if name.startswith("sg-")]
    wanted = [name for name in names if not name.startswith("sg-")]
    if not wanted:
        return ids
    vpc_id = _vpc_of(client, subnet_id)
    filters = [{"Name": "group-name", "Values": wanted}, {"Name": "vpc-id", "Values": [vpc_id]}]
    found = {
        group["GroupName"]: group["GroupId"]
        for group in client.pages("DescribeSecurityGroups", "SecurityGroups", Filters=filters)
    }
    for name in wanted:
        if name not in found:
            raise NotFound(f"there is no security group '{name}' in {vpc_id}; `orc group ls` shows them")
    return [name if name.startswith("sg-") else found[name] for name in names]


def _vpc_of(client: Client, subnet_id: str | None) -> str:
    if subnet_id:
        return str(client.ec2("DescribeSubnets", SubnetIds=[subnet_id])["Subnets"][0]["VpcId"])
    vpcs = client.ec2("DescribeVpcs", Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    if not vpcs:
        raise NotFound(f"there is no default VPC in {client.region}: say --subnet")
    return str(vpcs[0]["VpcId"])
