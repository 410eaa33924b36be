"""What is known of instances beyond EC2's answers: a launch's timeline, and what the host has for them."""

from __future__ import annotations

from orchestrator.api.accounts import check_first
from orchestrator.api.operation import Answer, Call, operation
from orchestrator.model.instance import PHASES, Instance
from orchestrator.model.owned import owned


@operation("DescribeLaunch", service="orc")
def describe_launch(call: Call, *, instance_id: str) -> Answer:
    instance = call.find(Instance, "i", instance_id)
    seen = sorted(
        ((name, instance.timeline[name]) for name in PHASES if name in instance.timeline), key=lambda phase: phase[1]
    )
    phases = []
    for position, (name, at) in enumerate(seen):
        before = seen[max(0, position - 1)][1]
        phases.append(
            {
                "Name": name,
                "Time": at,
                "SinceRequestMs": round((at - seen[0][1]).total_seconds() * 1000),
                "TookMs": round((at - before).total_seconds() * 1000),
            }
        )
    return {"InstanceId": instance.id, "LoginUser": instance.login_user, "Phases": phases}


@operation("DescribeOwned", service="orc")
def describe_owned(call: Call) -> Answer:
    """For `orc doctor --leaks`: over all accounts and regions, since the host is one."""
    check_first(call)
    found = owned(call.db)
    return {
        "Owned": {
            "Machines": sorted(found.machines),
            "Layers": sorted(found.layers),
            "Routers": sorted(found.routers),
            "Ports": sorted(found.ports),
        }
    }
