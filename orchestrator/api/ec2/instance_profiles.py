"""Instance profiles of instances: by these a guest finds a role's credentials in its metadata.

An association is a part of its instance, made and ended at once: there is nothing on the host that would have to
change. Whoever gives an instance a profile passes its role to it, which `iam:PassRole` must allow (api/resources.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from orchestrator.api.ec2.launch_options import Structure, take
from orchestrator.api.operation import Answer, Call, choose, operation, page
from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, missing_parameter
from orchestrator.model.filters import FilterTable
from orchestrator.model.iam import InstanceProfile
from orchestrator.model.instance import Instance, ProfileAssociation
from orchestrator.model.lifecycle import State

_ENDED: Final = (State.SHUTTING_DOWN, State.TERMINATED)


def find_profile(call: Call, given: Structure | None) -> InstanceProfile:
    """The one that a request names by its name or its ARN."""
    wanted = take(given, "IamInstanceProfile", "Arn", "Name")
    arn, name = wanted.get("Arn"), wanted.get("Name")
    if not arn and not name:
        raise missing_parameter("IamInstanceProfile.Name or IamInstanceProfile.Arn")
    if arn and name:
        raise EC2Error(
            "InvalidParameterCombination", "The parameter 'iamInstanceProfile.name' may not be used with an ARN"
        )
    for profile in call.mine(InstanceProfile):
        if (arn and profile.arn == arn) or (name and profile.name == name):
            return profile
    which, value = ("Arn", arn) if arn else ("Name", name)
    raise EC2Error(
        "InvalidParameterValue",
        f"Value ({value}) for parameter iamInstanceProfile.{which.lower()} is invalid. Invalid IAM Instance Profile "
        + ("ARN" if arn else "name"),
    )


def new_association(call: Call, given: Structure | None) -> ProfileAssociation | None:
    """For an instance that is launched; None when no profile is asked for."""
    return _associate(call, find_profile(call, given)) if given else None


def _associate(call: Call, profile: InstanceProfile) -> ProfileAssociation:
    return ProfileAssociation(id=ids.mint("iip-assoc"), profile_id=profile.id, arn=profile.arn, since=call.now)


@operation("AssociateIamInstanceProfile", writes=True)
def associate_iam_instance_profile(call: Call, *, iam_instance_profile: Mapping[str, Any], instance_id: str) -> Answer:
    instance = call.find(Instance, "i", instance_id)
    profile = find_profile(call, iam_instance_profile)
    if instance.state in _ENDED:
        raise EC2Error(
            "IncorrectInstanceState", f"The instance '{instance.id}' is {instance.state}: it must be running or stopped"
        )
    if instance.profile is not None:
        raise EC2Error("IncorrectState", f"There is an existing association for instance {instance.id}")
    return _put(call, instance, _associate(call, profile), "associating")


@operation("ReplaceIamInstanceProfileAssociation", writes=True)
def replace_iam_instance_profile_association(
    call: Call, *, iam_instance_profile: Mapping[str, Any], association_id: str
) -> Answer:
    instance = _find(call, association_id)
    return _put(call, instance, _associate(call, find_profile(call, iam_instance_profile)), "associating")


@operation("DisassociateIamInstanceProfile", writes=True)
def disassociate_iam_instance_profile(call: Call, *, association_id: str) -> Answer:
    instance = _find(call, association_id)
    assert instance.profile is not None
    call.tx.put(replace(instance, profile=None))
    return {"IamInstanceProfileAssociation": _show(instance.id, instance.profile, "disassociating")}


def _find(call: Call, association_id: str) -> Instance:
    ids.check("iip-assoc", association_id)
    for instance in _associated(call):
        if instance.profile is not None and instance.profile.id == association_id:
            return instance
    raise EC2Error("NoSuchAssociation", f"An invalid association-id of '{association_id}' was given")


def _associated(call: Call) -> list[Instance]:
    return [each for each in call.mine(Instance) if each.profile is not None and each.state is not State.TERMINATED]


def _put(call: Call, instance: Instance, association: ProfileAssociation, state: str) -> Answer:
    call.tx.put(replace(instance, profile=association))
    return {"IamInstanceProfileAssociation": _show(instance.id, association, state)}


@operation("DescribeIamInstanceProfileAssociations", listing=True)
def describe_iam_instance_profile_associations(call: Call, *, association_ids: list[str] | None = None) -> Answer:
    found = _associated(call)
    if association_ids:
        wanted = {ids.check("iip-assoc", each) for each in association_ids}
        found = [each for each in found if each.profile is not None and each.profile.id in wanted]
        if len(found) < len(wanted):
            have = {each.profile.id for each in found if each.profile is not None}
            raise EC2Error("NoSuchAssociation", f"An invalid association-id of '{min(wanted - have)}' was given")
    chosen, token = page(call, choose(call, found, _FILTERS))
    answer: Answer = {
        "IamInstanceProfileAssociations": [
            _show(each.id, each.profile, "associated") for each in chosen if each.profile is not None
        ]
    }
    return {**answer, "NextToken": token} if token else answer


_FILTERS: Final[FilterTable] = {
    "instance-id": lambda instance: instance.id,
    "state": lambda instance: "associated",
}


def _show(instance_id: str, association: ProfileAssociation, state: str) -> Answer:
    return {
        "AssociationId": association.id,
        "InstanceId": instance_id,
        "IamInstanceProfile": {"Arn": association.arn, "Id": association.profile_id},
        "State": state,
        "Timestamp": association.since,
    }
