"""What may happen to things without a call, as time passes: which states follow which, and why.

instance    pending -> running    stopping -> stopped    shutting-down -> terminated -> forgotten after an hour
            pending -> stopping, shutting-down     only if the host has failed since it was asked for
            running -> stopping, shutting-down     only if its guest has switched itself off
volume      creating -> available, in-use, or error (the host)      deleting -> gone
attachment  attaching -> attached     detaching -> busy -> free     all are free or gone when the instance ends
snapshot    pending -> completed, or error (the host)
image       pending -> available, or failed (one of its snapshots)
address     parted when its interface goes
NAT         pending -> available, or failed (no gateway)     deleting -> deleted -> forgotten after an hour
"""

from __future__ import annotations

from tests.model_based.reference import (
    KEPT,
    Address,
    After,
    Attachment,
    Gateway,
    Image,
    Instance,
    Interface,
    Law,
    Nat,
    Reference,
    Snapshot,
    Thing,
    Volume,
)


def _same_but(old: Thing, new: Thing, *names: str) -> bool:
    ours = {name: value for name, value in vars(old).items() if name not in names}
    ignored = {"public", "wants_public", "ended", "original", "wanted", "asked_at", "ended_at", "has_run"}
    return all(name in ignored or vars(new)[name] == value for name, value in ours.items())


def _instance(m: Reference, old: Thing, new: Thing | None, after: After) -> bool:
    assert isinstance(old, Instance) and (new is None or isinstance(new, Instance))
    if new is None:
        return old.state == "terminated" and old.ended_at is not None and m.now - old.ended_at >= KEPT
    if not _same_but(old, new, "state"):
        return False
    if new.state == "running":
        new.has_run = True
    if new.state == "stopped":
        m.powered_off.discard(old.id)
    move = (old.state, new.state)
    if move in (("pending", "shutting-down"), ("pending", "stopping")):  # it could not be started
        new.wanted = "stopped" if old.has_run else "terminated"
        return m.faults > old.asked_at and (new.state == "stopping") == old.has_run
    if move in (("running", "stopping"), ("running", "shutting-down")):  # its guest has switched itself off
        new.wanted = "terminated" if old.at_shutdown == "terminate" else "stopped"
        is_right = (new.state == "shutting-down") == (old.at_shutdown == "terminate")
        ours = old.id in m.powered_off
        m.powered_off.discard(old.id)
        return is_right and ours
    if move == ("shutting-down", "terminated"):
        gone = {each.id for each in m.volumes_of(old.id)} | {each.id for each in m.interfaces_of(old.id)}
        return all(each in after for each in gone)
    return old.state == new.state or move in (("pending", "running"), ("stopping", "stopped"))


def _ends(after: After, instance_id: str) -> bool:
    """The instance is terminated in this very commit."""
    new = after.get(instance_id)
    return isinstance(new, Instance) and new.state == "terminated"


def _detached(m: Reference, at: Attachment, after: After) -> bool:
    """It has become free: it was leaving, or its instance is no more, or it could not be plugged in."""
    return at.state in ("detaching", "busy") or _ends(after, at.instance) or (at.state == "attaching" and m.faults > 0)


def _moved(old: Attachment, new: Attachment) -> bool:
    same = (old.instance, old.place, old.goes, old.id) == (new.instance, new.place, new.goes, new.id)
    moves = (("attaching", "attached"), ("detaching", "busy"))
    return same and (old.state == new.state or (old.state, new.state) in moves)


def _volume(m: Reference, old: Thing, new: Thing | None, after: After) -> bool:
    assert isinstance(old, Volume) and (new is None or isinstance(new, Volume))
    if new is None:
        at = old.attachment
        goes = at is not None and at.goes and at.state not in ("detaching", "busy") and _ends(after, at.instance)
        return old.state == "deleting" or goes
    if not _same_but(old, new, "state", "attachment", "change", "size", "type"):
        return False
    if (old.size, old.type) != (new.size, new.type) and not (
        (old.change, new.change) == ("modifying", "failed") and (new.size, new.type) == old.original
    ):
        return False
    changes = (("modifying", "optimizing"), ("optimizing", "completed"))
    failed = (old.change, new.change) == ("modifying", "failed") and m.faults > old.asked_at
    if old.change != new.change and (old.change, new.change) not in changes and not failed:
        return False
    if not _attachment_follows(m, old, new, after):
        return False
    if new.state == "error":
        return old.state == "creating" and m.faults > old.asked_at
    if new.state in ("available", "in-use"):
        return old.state in ("creating", "available", "in-use") and (new.state == "in-use") == bool(new.attachment)
    return new.state == old.state


def _attachment_follows(m: Reference, old: Volume, new: Volume, after: After) -> bool:
    at = old.attachment
    if at is None:
        return new.attachment is None
    if new.attachment is not None:
        return _moved(at, new.attachment)
    goes = at.goes and at.state not in ("detaching", "busy") and _ends(after, at.instance)
    return _detached(m, at, after) and not goes  # the volume would be gone, not free


def _snapshot(m: Reference, old: Thing, new: Thing | None, after: After) -> bool:
    assert isinstance(old, Snapshot)
    if not isinstance(new, Snapshot) or not _same_but(old, new, "state"):
        return False
    if (old.state, new.state) == ("pending", "error"):  # with the one that it lies on, which failed
        together = [each for each in map(m.things.get, after) if isinstance(each, Snapshot)]
        return any(m.faults > each.asked_at for each in together)
    return old.state == new.state or (old.state, new.state) == ("pending", "completed")


def _image(m: Reference, old: Thing, new: Thing | None, after: After) -> bool:
    assert isinstance(old, Image)
    if not isinstance(new, Image) or not _same_but(old, new, "state") or old.state not in ("pending", new.state):
        return False
    states = {each.state for each in m.of(Snapshot) if any(each.id == d[0] for d in old.devices.values())}
    if new.state == "available":
        return states == {"completed"} or old.state == "available"
    return new.state == old.state or (new.state == "failed" and "error" in states)


def _interface(m: Reference, old: Thing, new: Thing | None, after: After) -> bool:
    assert isinstance(old, Interface) and (new is None or isinstance(new, Interface))
    at = old.attachment
    if new is None:
        ends = [each for each in after.values() if isinstance(each, Nat) and each.interface == old.id]
        goes = at is not None and at.goes and at.state != "detaching" and _ends(after, at.instance)
        return goes or any(each.state in ("deleted", "failed") for each in ends)
    if not _same_but(old, new, "state", "attachment"):
        return False
    if (new.state == "in-use") != bool(new.attachment or new.nat):
        return False
    if at is None or new.attachment is None:
        return new.attachment is None and (at is None or _detached(m, at, after))
    return _moved(at, new.attachment)


def _address(m: Reference, old: Thing, new: Thing | None, after: After) -> bool:
    assert isinstance(old, Address)
    if not isinstance(new, Address) or not _same_but(old, new, "interface", "association"):
        return False
    if old == new:
        return True
    return not new.interface and not new.association and old.interface in after and after[old.interface] is None


def _nat(m: Reference, old: Thing, new: Thing | None, after: After) -> bool:
    assert isinstance(old, Nat) and (new is None or isinstance(new, Nat))
    if new is None:
        return old.ended_at is not None and m.now - old.ended_at >= KEPT
    if not _same_but(old, new, "state"):
        return False
    routed = not old.internet or any(each.vpc == old.vpc for each in m.of(Gateway))
    moves = {("pending", "available" if routed else "failed"), ("deleting", "deleted")}
    return old.state == new.state or (old.state, new.state) in moves


LAWS: dict[type[Thing], Law] = {
    Instance: _instance,
    Volume: _volume,
    Snapshot: _snapshot,
    Image: _image,
    Interface: _interface,
    Address: _address,
    Nat: _nat,
}
