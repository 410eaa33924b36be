"""Start, stop, reboot, terminate, and waiting for what follows from it.

    start      stopped -> pending -> running          stop       running -> stopping -> stopped
    reboot     running                                terminate  any -> shutting-down -> terminated

A wait ends at once, with the reason, for what can no longer happen.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

import click

from orchestrator.cli.arguments import instances_argument, timeout_option, with_client
from orchestrator.cli.client import APIError, Client
from orchestrator.cli.output import note
from orchestrator.cli.session import known_hosts_file
from orchestrator.cli.waiting import progress, wait_for

STATES = ("running", "stopped", "terminated", "ok", "ssh")
WAIT_TIMEOUT_S = 600.0

# Reached from these states by nothing but another request, so there is no use in waiting for it.
_HOPELESS = {
    "running": ("stopped", "shutting-down", "terminated"),
    "stopped": ("shutting-down", "terminated"),
    "terminated": (),
}


def wait_option(command: Any) -> Any:
    command = timeout_option(WAIT_TIMEOUT_S)(command)
    return click.option("-w", "--wait", is_flag=True, help="until it is done")(command)


@click.command()
@instances_argument
@wait_option
@with_client
def start(client: Client, instances: tuple[str, ...], wait: bool, timeout_s: float) -> None:
    """Start stopped instances. Each gets a new public address."""
    ids = client.find(instances)
    _report(client.ec2("StartInstances", InstanceIds=ids)["StartingInstances"])
    if wait:
        wait_until(client, ids, "running", timeout_s)


@click.command()
@instances_argument
@click.option("-f", "--force", is_flag=True, help="pull the plug: the guest is not asked to shut down")
@wait_option
@with_client
def stop(client: Client, instances: tuple[str, ...], force: bool, wait: bool, timeout_s: float) -> None:
    """Stop instances. Volumes and private addresses stay; public addresses go, unless they are Elastic IPs."""
    ids = client.find(instances)
    _report(client.ec2("StopInstances", InstanceIds=ids, Force=force)["StoppingInstances"])
    if wait:
        wait_until(client, ids, "stopped", timeout_s)


@click.command()
@instances_argument
@with_client
def reboot(client: Client, instances: tuple[str, ...]) -> None:
    """Reboot instances. Nothing of them changes; they stay in the state running."""
    ids = client.find(instances)
    client.ec2("RebootInstances", InstanceIds=ids)
    for instance_id in ids:
        click.echo(f"{instance_id}  reboots")


@click.command()
@instances_argument
@click.option("-y", "--yes", is_flag=True, help="do not ask")
@wait_option
@with_client
def terminate(client: Client, instances: tuple[str, ...], yes: bool, wait: bool, timeout_s: float) -> None:
    """End instances for good, and the volumes that are to go with them. Asks first when a person is there to answer."""
    ids = client.find(instances)
    if not yes and sys.stdin.isatty():
        named = ", ".join(instances)
        if not click.confirm(f"Terminate {named}? What is on {'its' if len(ids) == 1 else 'their'} disk is lost"):
            note("nothing was terminated")
            return
    _report(client.ec2("TerminateInstances", InstanceIds=ids)["TerminatingInstances"])
    for instance_id in ids:
        with suppress(OSError, click.ClickException):  # without a directory of ours there is nothing in it
            known_hosts_file(instance_id).unlink()
    if wait:
        wait_until(client, ids, "terminated", timeout_s)


@click.command()
@instances_argument
@timeout_option(WAIT_TIMEOUT_S)
@with_client
def wait(client: Client, instances: tuple[str, ...], timeout_s: float) -> None:
    """Wait until instances are in a state: the last argument, which is one of running, stopped, terminated, ok (both
    status checks pass) and ssh (port 22 answers).

    \b
    orc wait web-1 web-2 running
    orc wait web-1 ssh --timeout 60
    """
    *named, state = instances
    if state not in STATES or not named:
        raise click.UsageError(f"expected instances and then a state: one of {', '.join(STATES)}")
    wait_until(client, client.find(named, terminated=state == "terminated"), state, timeout_s)


def _report(changes: list[dict[str, Any]]) -> None:
    for change in changes:
        before, now = change["PreviousState"]["Name"], change["CurrentState"]["Name"]
        click.echo(f"{change['InstanceId']}  {now if before == now else f'{before} -> {now}'}")


def wait_until(client: Client, ids: list[str], state: str, timeout_s: float) -> None:
    """Until all are in the state. Raises APIError when one never will be, WaitedTooLong after `timeout_s`."""
    what = f"{ids[0] if len(ids) == 1 else f'{len(ids)} instances'} to be {state}"
    with progress(f"waiting for {what}") as say:
        if state == "ok":
            wait_for(lambda: _all_ok(client, ids, say), what, timeout_s)
        elif state == "ssh":
            wait_for(lambda: _all_in(client, ids, "running", say), what, timeout_s)
            for instance_id in ids:
                wait_for(lambda one=instance_id: _ssh_answers(client, one, say), what, timeout_s)  # type: ignore[misc]
        else:
            wait_for(lambda: _all_in(client, ids, state, say), what, timeout_s)


def _all_in(client: Client, ids: list[str], state: str, say: Any) -> bool | None:
    try:
        found = client.instances(ids)
    except APIError as error:
        if state == "terminated" and error.code == "InvalidInstanceID.NotFound":
            return True  # so long ago that it is not shown any more
        raise
    for instance in found:
        now = instance["State"]["Name"]
        if now in _HOPELESS[state]:
            raise _never(instance, state)
    states = [instance["State"]["Name"] for instance in found]
    done = states.count(state)
    say(states[0] if len(states) == 1 else f"{done} of {len(ids)} {state}")
    return True if done == len(ids) else None


def _never(instance: dict[str, Any], state: str) -> click.ClickException:
    now = instance["State"]["Name"]
    reason = instance.get("StateReason", {}).get("Message") or "no reason is known"
    return click.ClickException(
        f"{instance['InstanceId']} is {now} ({reason}), so it will not be {state}; "
        f"`orc show {instance['InstanceId']}` and `orc logs {instance['InstanceId']}` tell more"
    )


def _all_ok(client: Client, ids: list[str], say: Any) -> bool | None:
    _all_in(client, ids, "running", lambda _: None)
    statuses = client.ec2("DescribeInstanceStatus", InstanceIds=ids)["InstanceStatuses"]
    good = 0
    for status in statuses:
        good += all(status.get(side, {}).get("Status") == "ok" for side in ("SystemStatus", "InstanceStatus"))
    say(f"{good} of {len(ids)} ok")
    return True if good == len(ids) else None


def _ssh_answers(client: Client, instance_id: str, say: Any) -> bool | None:
    from orchestrator.cli.streams import StreamError, open_tunnel

    say("no answer at port 22 yet")
    try:
        with open_tunnel(client, instance_id, 22) as stream:
            stream.settimeout(10.0)
            return True if stream.recv(4) == b"SSH-" else None
    except StreamError as error:
        if error.temporary:
            return None
        raise
    except OSError:
        return None
