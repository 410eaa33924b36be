"""Instance profiles, what an instance may by its own, and who may give it one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from orchestrator.api.operation import Caller
from orchestrator.metadata.credentials import Vendor
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error
from orchestrator.model.iam import Principal, Role, User
from orchestrator.model.image import BlockDevice, Image
from orchestrator.model.instance import Instance
from orchestrator.model.layer import Layer
from orchestrator.model.resource import EVERY_REGION
from orchestrator.model.snapshot import Snapshot
from tests.api.cloud import ACCOUNT, OTHER, Cloud, Keys, allow, deny, document, open_cloud, refused
from tests.conftest import Clock

EC2_TRUST = {"Service": "ec2.amazonaws.com"}
NOT_AUTHORIZED = "UnauthorizedOperation"


def make_vpc(cloud: Cloud, keys: Keys | None = None, **tags: str) -> str:
    ec2 = cloud.client("ec2", keys)
    specification = [{"ResourceType": "vpc", "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}]
    made: str = ec2.create_vpc(CidrBlock="10.0.0.0/16", TagSpecifications=specification if tags else [])["Vpc"]["VpcId"]
    return made


# --- instance profiles ------------------------------------------------------------------------------------------------


def make_profile(cloud: Cloud, name: str = "web") -> str:
    """An instance profile with a role of the same name; its ARN."""
    iam = cloud.client("iam")
    cloud.role(name, EC2_TRUST, allow("ec2:DescribeVpcs"))
    made: str = iam.create_instance_profile(InstanceProfileName=name)["InstanceProfile"]["Arn"]
    iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)
    return made


def test_an_instance_profiles_life(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    arn = make_profile(cloud)
    shown = iam.get_instance_profile(InstanceProfileName="web")["InstanceProfile"]
    assert (shown["Arn"], [role["RoleName"] for role in shown["Roles"]]) == (arn, ["web"])
    assert shown["Roles"][0]["AssumeRolePolicyDocument"]["Statement"][0]["Principal"] == EC2_TRUST
    cloud.role("second", EC2_TRUST)
    adding = {"InstanceProfileName": "web", "RoleName": "second"}
    assert refused(iam.add_role_to_instance_profile, **adding)[0] == "LimitExceeded"
    assert refused(iam.delete_role, RoleName="web")[0] == "DeleteConflict"
    assert refused(iam.delete_instance_profile, InstanceProfileName="web")[0] == "DeleteConflict"
    listed = iam.list_instance_profiles_for_role(RoleName="web")["InstanceProfiles"]
    assert [profile["InstanceProfileName"] for profile in listed] == ["web"]
    iam.remove_role_from_instance_profile(InstanceProfileName="web", RoleName="web")
    iam.delete_instance_profile(InstanceProfileName="web")
    assert refused(iam.delete_role, RoleName="web")[0] == "DeleteConflict", "it still has a policy"
    iam.delete_role_policy(RoleName="web", PolicyName="p")
    iam.delete_role(RoleName="web")
    assert [role["RoleName"] for role in iam.list_roles()["Roles"]] == ["second"]


def test_a_roles_attributes(cloud: Cloud) -> None:
    iam = cloud.client("iam")
    cloud.role("r", EC2_TRUST)
    iam.update_role(RoleName="r", Description="for tests", MaxSessionDuration=7200)
    role = iam.get_role(RoleName="r")["Role"]
    assert (role["Description"], role["MaxSessionDuration"]) == ("for tests", 7200)
    assert refused(iam.update_role, RoleName="r", MaxSessionDuration=50000)[0] == "ValidationError"
    trust = document({"Effect": "Allow", "Principal": {"AWS": ACCOUNT}, "Action": "sts:AssumeRole"})
    iam.update_assume_role_policy(RoleName="r", PolicyDocument=trust)
    assert iam.get_role(RoleName="r")["Role"]["AssumeRolePolicyDocument"] == json.loads(trust)
    iam.tag_role(RoleName="r", Tags=[{"Key": "a", "Value": "b"}])
    assert iam.list_role_tags(RoleName="r")["Tags"] == [{"Key": "a", "Value": "b"}]


# --- instances with profiles ------------------------------------------------------------------------------------------


def launch(cloud: Cloud, keys: Keys | None = None, **params: Any) -> dict[str, Any]:
    """One instance of an image of the catalogue."""
    if not cloud.store.all(Image):
        mine: dict[str, Any] = {"account": ACCOUNT, "region": EVERY_REGION, "created": cloud.clock()}
        layer = Layer(id=ids.mint("layer"), size_bytes=1 << 30, **mine)
        snapshot = Snapshot(id=ids.mint("snap"), layer_id=layer.id, size_gib=1, **mine)
        device = BlockDevice(device="/dev/xvda", snapshot_id=snapshot.id, size_gib=1)
        image = Image(id=ids.mint("ami"), **mine, name="tiny", login_user="root", public=True, block_devices=(device,))
        with cloud.store.write() as tx:
            tx.put_all([layer, snapshot, image])
    image_id = cloud.store.all(Image)[0].id
    given = {"ImageId": image_id, "MinCount": 1, "MaxCount": 1, "InstanceType": "t3.micro", **params}
    made: dict[str, Any] = cloud.client("ec2", keys).run_instances(**given)["Instances"][0]
    return made


def test_an_instance_and_its_profile(cloud: Cloud) -> None:
    ec2 = cloud.client("ec2")
    arn = make_profile(cloud)
    instance = launch(cloud, IamInstanceProfile={"Name": "web"})
    assert instance["IamInstanceProfile"]["Arn"] == arn
    instance_id = instance["InstanceId"]
    by_name = [{"Name": "iam-instance-profile.name", "Values": ["web"]}]
    assert len(ec2.describe_instances(Filters=by_name)["Reservations"]) == 1
    by_instance = [{"Name": "instance-id", "Values": [instance_id]}]
    [association] = ec2.describe_iam_instance_profile_associations(Filters=by_instance)[
        "IamInstanceProfileAssociations"
    ]
    assert (association["State"], association["IamInstanceProfile"]["Arn"]) == ("associated", arn)
    associate = ec2.associate_iam_instance_profile
    assert refused(associate, InstanceId=instance_id, IamInstanceProfile={"Arn": arn})[0] == "IncorrectState"
    second = make_profile(cloud, "second")
    replaced = ec2.replace_iam_instance_profile_association(
        AssociationId=association["AssociationId"], IamInstanceProfile={"Arn": second}
    )["IamInstanceProfileAssociation"]
    assert replaced["IamInstanceProfile"]["Arn"] == second
    gone = association["AssociationId"]
    assert refused(ec2.disassociate_iam_instance_profile, AssociationId=gone)[0] == "NoSuchAssociation"
    ended = ec2.disassociate_iam_instance_profile(AssociationId=replaced["AssociationId"])
    assert ended["IamInstanceProfileAssociation"]["State"] == "disassociating"
    assert ec2.describe_iam_instance_profile_associations()["IamInstanceProfileAssociations"] == []
    assert "IamInstanceProfile" not in ec2.describe_instances()["Reservations"][0]["Instances"][0]
    associate(InstanceId=instance_id, IamInstanceProfile={"Name": "web"})
    for wrong in ({"Name": "absent"}, {"Arn": arn + "x"}):
        assert refused(launch, cloud, IamInstanceProfile=wrong)[0] == "InvalidParameterValue"


def test_to_pass_a_role_is_a_right_of_its_own(cloud: Cloud) -> None:
    make_profile(cloud)
    instance_id = launch(cloud)["InstanceId"]
    keys = cloud.user("alice", allow("ec2:*"))
    given = {"IamInstanceProfile": {"Name": "web"}}
    code, message = refused(launch, cloud, keys, **given)
    assert code == NOT_AUTHORIZED and "iam:PassRole" in message
    associate = cloud.client("ec2", keys).associate_iam_instance_profile
    assert "iam:PassRole" in refused(associate, InstanceId=instance_id, **given)[1]
    cloud.client("iam").put_user_policy(
        UserName="alice",
        PolicyName="pass",
        PolicyDocument=document(
            allow(
                "iam:PassRole",
                f"arn:aws:iam::{ACCOUNT}:role/web",
                StringEquals={"iam:PassedToService": "ec2.amazonaws.com"},
            )
        ),
    )
    launch(cloud, keys, **given)
    associate(InstanceId=instance_id, **given)
    adder = cloud.client("iam", cloud.user("bob", allow("iam:*"), deny("iam:PassRole")))
    cloud.client("iam").create_instance_profile(InstanceProfileName="mine")
    adding = {"InstanceProfileName": "mine", "RoleName": "web"}
    assert refused(adder.add_role_to_instance_profile, **adding)[0] == "AccessDenied"


def test_what_a_guest_reads_works_here_and_does_what_its_role_may(cloud: Cloud) -> None:
    make_profile(cloud)
    instance_id = launch(cloud, IamInstanceProfile={"Name": "web"})["InstanceId"]
    vendor = Vendor(cloud.store, cloud.clock)
    role = cloud.store.all(Role, name="web")[0]
    instance = cloud.store.get(Instance, instance_id)
    assert instance is not None
    keys = Keys.of(json.loads(vendor.credentials(instance, role)))
    who = cloud.client("sts", keys).get_caller_identity()
    assert who["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/web/{instance_id}"
    ec2 = cloud.client("ec2", keys)
    ec2.describe_vpcs()
    assert refused(ec2.terminate_instances, InstanceIds=[instance_id])[0] == NOT_AUTHORIZED
    assert refused(cloud.client("iam", keys).list_users)[0] == "AccessDenied"
    cloud.clock.pass_(hours=6)
    assert refused(ec2.describe_vpcs)[0] == "RequestExpired"
    cloud.client("ec2", Keys.of(json.loads(vendor.credentials(instance, role)))).describe_vpcs()
    cloud.client("iam").put_role_policy(
        RoleName="web",
        PolicyName="itself",
        PolicyDocument=document(
            allow(
                "ec2:TerminateInstances", ArnEquals={"ec2:SourceInstanceARN": f"arn:aws:ec2:*:*:instance/{instance_id}"}
            )
        ),
    )
    fresh = cloud.client("ec2", Keys.of(json.loads(vendor.credentials(instance, role))))
    fresh.terminate_instances(InstanceIds=[instance_id])


def test_what_may_be_launched(cloud: Cloud) -> None:
    any_of = [f"arn:aws:ec2:*:*:{kind}/*" for kind in ("volume", "network-interface", "security-group", "subnet")]
    keys = cloud.user(
        "alice",
        allow("ec2:RunInstances", [*any_of, "arn:aws:ec2:*::image/*"]),
        allow("ec2:RunInstances", "arn:aws:ec2:*:*:instance/*", StringLike={"ec2:InstanceType": "t3.*"}),
    )
    launch(cloud, keys)
    code, message = refused(launch, cloud, keys, InstanceType="m5.large")
    assert code == NOT_AUTHORIZED and "instance/*" in message


def test_a_subnet_that_is_not_named_is_asked_about_too(cloud: Cloud) -> None:
    launch(cloud)
    subnets = cloud.client("ec2").describe_subnets()["Subnets"]
    one = f"arn:aws:ec2:*:*:subnet/{subnets[0]['SubnetId']}"
    alice = cloud.user("alice", allow("ec2:*"), deny("ec2:RunInstances", one))
    assert refused(launch, cloud, alice)[0] == NOT_AUTHORIZED
    assert refused(launch, cloud, alice, SubnetId=subnets[0]["SubnetId"])[0] == NOT_AUTHORIZED
    launch(cloud, alice, SubnetId=subnets[1]["SubnetId"])
    launch(cloud, alice, Placement={"AvailabilityZone": subnets[1]["AvailabilityZone"]})
    group = cloud.client("ec2").describe_security_groups(GroupNames=["default"])["SecurityGroups"][0]["GroupId"]
    bob = cloud.user("bob", allow("ec2:*"), deny("ec2:RunInstances", f"arn:aws:ec2:*:*:security-group/{group}"))
    assert refused(launch, cloud, bob)[0] == NOT_AUTHORIZED


def test_any_credentials_are_the_accounts_root(tmp_path: Path, clock: Clock) -> None:
    with open_cloud(tmp_path, clock, any_credentials=True) as cloud:
        keys = cloud.user("alice")
        assert cloud.client("sts", keys).get_caller_identity()["Arn"] == f"arn:aws:iam::{ACCOUNT}:user/alice"
        cloud.client("ec2", keys).describe_vpcs()
        anybody = Keys("AKIAWHOEVER", "whatever")
        assert cloud.client("sts", anybody).get_caller_identity()["Account"] == "000000000000"
        assert cloud.client("sts", Keys(OTHER, "x")).get_caller_identity()["Account"] == OTHER


def test_a_rehearsal_needs_leave_too(cloud: Cloud) -> None:
    rehearse: dict[str, Any] = {"CidrBlock": "10.0.0.0/16", "DryRun": True}
    may, may_not = (
        cloud.client("ec2", cloud.user(name, allow(f"ec2:{action}"))) for name, action in (("a", "*"), ("b", "X"))
    )
    assert refused(may.create_vpc, **rehearse)[0] == "DryRunOperation"
    assert refused(may_not.create_vpc, **rehearse)[0] == NOT_AUTHORIZED


def test_a_key_that_ec2_uses_must_be_allowed(cloud: Cloud) -> None:
    key = cloud.client("kms").create_key()["KeyMetadata"]["Arn"]
    volume = {"Size": 1, "AvailabilityZone": "us-east-1a", "Encrypted": True}
    alice = cloud.client("ec2", cloud.user("alice", allow("ec2:*")))
    alice.create_volume(**volume)
    code, message = refused(alice.create_volume, **volume, KmsKeyId=key)
    assert code == NOT_AUTHORIZED and "kms:CreateGrant" in message
    by_ec2 = {"Bool": {"kms:GrantIsForAWSResource": "true"}, "StringLike": {"kms:ViaService": "ec2.*.amazonaws.com"}}
    cloud.client("iam").put_user_policy(
        UserName="alice", PolicyName="key", PolicyDocument=document(allow("kms:CreateGrant", key, **by_ec2))
    )
    assert alice.create_volume(**volume, KmsKeyId=key)["KmsKeyId"] == key
    assert refused(cloud.client("kms", cloud.user("bob", allow("ec2:*"))).describe_key, KeyId=key)[0] == (
        "AccessDeniedException"
    )


def test_a_way_to_a_guest_needs_leave(cloud: Cloud) -> None:
    """Consoles and tunnels are not API calls, and are asked for as orc:Connect to the instance."""
    one, two = launch(cloud)["InstanceId"], launch(cloud)["InstanceId"]
    keys = cloud.user("alice", allow("orc:Connect", f"arn:aws:ec2:*:*:instance/{one}"))
    user = cloud.store.all(User, name="alice")[0]
    caller = Caller(account=ACCOUNT, access_key=keys.access_key, arn=user.arn, principal=Principal(identity=user))
    call = cloud.gateway.call("orc", "Connect", caller, "us-east-1", "request", "127.0.0.1")
    call.params["InstanceId"] = one
    cloud.gateway.authorise(call)
    call.params["InstanceId"] = two
    with pytest.raises(EC2Error, match="orc:Connect"):
        cloud.gateway.authorise(call)
    upload = cloud.gateway.call("orc", "Upload", caller, "us-east-1", "request", "127.0.0.1")
    with pytest.raises(EC2Error, match="orc:Upload"):
        cloud.gateway.authorise(upload)


def test_a_request_made_to_be_slow_to_judge_is_refused_soon(cloud: Cloud) -> None:
    patterns = {"StringLike": {"aws:RequestTag/a": "*" + "a*" * 500 + "b"}}
    ec2 = cloud.client("ec2", cloud.user("alice", allow("ec2:CreateTags", **patterns), allow("ec2:RevokeSecurity*")))
    began = time.perf_counter()
    tags = [{"Key": "a", "Value": "a" * 1_000_000}]
    assert refused(ec2.create_tags, Resources=["vpc-0123456789abcdef0"], Tags=tags)[0] == NOT_AUTHORIZED
    rules = [f"sgr-{number:017x}" for number in range(900)]
    code = refused(ec2.revoke_security_group_ingress, GroupId="sg-0123456789abcdef0", SecurityGroupRuleIds=rules)[0]
    assert code == "InvalidParameterValue"
    assert time.perf_counter() - began < 5
