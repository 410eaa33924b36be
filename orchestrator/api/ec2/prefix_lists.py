"""Managed prefix lists: made, changed in versions, listed, deleted. Rules and routes that name one follow at once.

    version 1 --AddEntries, RemoveEntries--> version 2 --RestoreManagedPrefixListVersion 1--> version 3, as version 1

A change names the version that it is made to, so that two of them do not cross. Every VPC with a security group or a
route table that refers to the list is woken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Final

from orchestrator.api.operation import Answer, Call, choose, operation, show_page
from orchestrator.model import ids, route, security_group
from orchestrator.model.errors import (
    EC2Error,
    dependency_violation,
    invalid_parameter,
    missing_parameter,
    one_of,
)
from orchestrator.model.filters import FilterTable
from orchestrator.model.prefix_list import (
    AWS,
    FAMILIES,
    MAX_CHANGES,
    MAX_ENTRIES,
    MAX_NAME,
    MAX_VERSIONS,
    check_size,
    read_entries,
    read_entry,
)
from orchestrator.model.tags import tag_set, tags_at_creation
from orchestrator.model.vpc import PrefixEntry, PrefixList, RouteTable, Rule, SecurityGroup

MAX_LISTS: Final = 100  # of an account in a region
LARGEST_PAGE: Final = 100


def visible_prefix_lists(call: Call) -> list[PrefixList]:
    """The caller's own and those that come with the region."""
    given = [each for each in call.db.all(PrefixList, account=AWS) if each.region == call.region]
    return [*given, *call.mine(PrefixList)]


def find_prefix_list(call: Call, list_id: str) -> PrefixList:
    """One that the caller may refer to."""
    return _find_visible(call, [list_id])[0]


def _find_visible(call: Call, list_ids: list[str]) -> list[PrefixList]:
    wanted = list(dict.fromkeys(ids.check("pl", list_id) for list_id in list_ids))
    visible = {each.id: each for each in visible_prefix_lists(call)}
    if absent := [list_id for list_id in wanted if list_id not in visible]:
        raise ids.missing("pl", absent)
    return [visible[list_id] for list_id in wanted]


def _find_own(call: Call, list_id: str) -> PrefixList:
    """One that the caller may change."""
    found = find_prefix_list(call, list_id)
    if found.account != call.account:
        raise EC2Error("OperationNotPermitted", f"{found.id} is AWS's: nobody else changes it")
    return found


def rule_weight(call: Call, rule: Rule) -> int:
    """How many rules one counts as: a prefix list, as many as it may have entries."""
    if not rule.prefix_list_id:
        return 1
    found = call.db.get(PrefixList, rule.prefix_list_id)
    return found.max_entries if found is not None else 1


# --- make and change --------------------------------------------------------------------------------------------------


@operation("CreateManagedPrefixList", writes=True)
def create_managed_prefix_list(
    call: Call,
    *,
    prefix_list_name: str,
    max_entries: int,
    address_family: str,
    entries: list[Answer] | None = None,
    tag_specifications: list[Answer] | None = None,
) -> Answer:
    family = one_of("AddressFamily", address_family, FAMILIES)
    read = read_entries(entries or (), family)
    check_size(len(read), _read_max_entries(max_entries))
    if len(call.mine(PrefixList)) >= MAX_LISTS:
        raise EC2Error("PrefixListLimitExceeded", f"An account has at most {MAX_LISTS} prefix lists in a region")
    made = PrefixList(
        id=ids.mint("pl"),
        account=call.account,
        region=call.region,
        created=call.now,
        tags=tags_at_creation(tag_specifications, "prefix-list")["prefix-list"],
        name=_read_name(prefix_list_name),
        family=family,
        max_entries=max_entries,
        entries=tuple(read),
    )
    return {"PrefixList": show_prefix_list(call.tx.put(made))}


def _read_name(name: str) -> str:
    if not name:
        raise missing_parameter("PrefixListName")
    if len(name) > MAX_NAME or name.lower().startswith("com.amazonaws"):
        allowed = f"at most {MAX_NAME} characters that do not start with com.amazonaws"
        raise invalid_parameter("PrefixListName", name[:MAX_NAME], allowed)
    return name


def _read_max_entries(count: int) -> int:
    if not 1 <= count <= MAX_ENTRIES:
        raise invalid_parameter("MaxEntries", count, f"an integer from 1 to {MAX_ENTRIES}")
    return count


@operation("ModifyManagedPrefixList", writes=True)
def modify_managed_prefix_list(
    call: Call,
    *,
    prefix_list_id: str,
    current_version: int | None = None,
    prefix_list_name: str | None = None,
    add_entries: list[Answer] | None = None,
    remove_entries: list[Answer] | None = None,
    max_entries: int | None = None,
) -> Answer:
    """Entries make a new version; a name or a size makes none. A size and entries do not change together."""
    found = _find_own(call, prefix_list_id)
    entries_change = bool(add_entries or remove_entries)
    if max_entries is not None and entries_change:
        message = "You cannot modify the entries of a prefix list and its MaxEntries in the same request"
        raise EC2Error("InvalidParameterCombination", message)
    if entries_change and current_version is None:
        raise missing_parameter("CurrentVersion")
    if current_version is not None:
        _check_version(found, current_version)
    changed = found
    if prefix_list_name is not None:
        changed = replace(changed, name=_read_name(prefix_list_name))
    if max_entries is not None:
        changed = replace(changed, max_entries=_read_max_entries(max_entries))
        check_size(len(changed.entries), max_entries)
    if entries_change:
        changed = _next_version(changed, _merged(changed, add_entries or [], remove_entries or []))
    if changed != found:
        changed = call.tx.put(replace(changed, state="modify-complete"))
        if changed.max_entries > found.max_entries:
            _check_room(call, changed)
        if changed.entries != found.entries:
            _wake_users(call, changed)
    return {"PrefixList": show_prefix_list(changed)}


def _check_version(found: PrefixList, version: int) -> None:
    if version != found.version:
        raise EC2Error(
            "PrefixListVersionMismatch",
            f"The prefix list has the incorrect version number: {found.id} is at version {found.version}, not "
            f"{version}",
        )


def _merged(found: PrefixList, added: list[Answer], removed: list[Answer]) -> tuple[PrefixEntry, ...]:
    """An entry that is there already gets the new description."""
    if len(added) > MAX_CHANGES or len(removed) > MAX_CHANGES:
        raise invalid_parameter("Entries", f"{max(len(added), len(removed))} entries", f"at most {MAX_CHANGES}")
    entries = {entry.cidr: entry for entry in found.entries}
    coming = read_entries(added, found.family)
    for each in removed:
        cidr = read_entry(each.get("Cidr") or "", found.family)
        if any(entry.cidr == cidr for entry in coming):
            raise EC2Error("InvalidParameterValue", f"The entry {cidr} is both added and removed")
        if entries.pop(cidr, None) is None:
            raise EC2Error("InvalidParameterValue", f"The prefix list {found.id} has no entry {cidr}")
    entries |= {entry.cidr: entry for entry in coming}
    check_size(len(entries), found.max_entries)
    return tuple(entries.values())


def _next_version(found: PrefixList, entries: tuple[PrefixEntry, ...]) -> PrefixList:
    oldest = found.version + 2 - MAX_VERSIONS
    kept = {version: old for version, old in found.earlier.items() if int(version) >= oldest}
    earlier = {**kept, str(found.version): found.entries}
    return replace(found, version=found.version + 1, entries=entries, earlier=earlier)


def _check_room(call: Call, grown: PrefixList) -> None:
    """That each group and route table that refers to the list has room for its size. Its entries need no more."""
    for user in _users(call, grown.id):
        if isinstance(user, SecurityGroup):
            security_group.check_count(user, lambda rule: rule_weight(call, rule))
        else:
            route.check_count(call.tx, user, grown.id)


@operation("RestoreManagedPrefixListVersion", writes=True)
def restore_managed_prefix_list_version(
    call: Call, *, prefix_list_id: str, previous_version: int, current_version: int
) -> Answer:
    found = _find_own(call, prefix_list_id)
    _check_version(found, current_version)
    entries = _entries_of(found, previous_version)
    check_size(len(entries), found.max_entries)
    changed = call.tx.put(replace(_next_version(found, entries), state="restore-complete"))
    _wake_users(call, changed)
    return {"PrefixList": show_prefix_list(changed)}


def _entries_of(found: PrefixList, version: int | None) -> tuple[PrefixEntry, ...]:
    if version in (None, found.version):
        return found.entries
    if str(version) not in found.earlier:
        raise invalid_parameter("Version", version, f"a version that {found.id} keeps, up to {found.version}")
    return found.earlier[str(version)]


@operation("DeleteManagedPrefixList", writes=True)
def delete_managed_prefix_list(call: Call, *, prefix_list_id: str) -> Answer:
    found = _find_own(call, prefix_list_id)
    users = [user.id for user in _users(call, found.id)]
    if users:
        raise dependency_violation(f"The prefix list {found.id} is in use by {', '.join(sorted(users)[:10])}")
    call.tx.delete(found)
    return {"PrefixList": show_prefix_list(replace(found, state="delete-complete"))}


# --- who refers to one ------------------------------------------------------------------------------------------------


def _users(call: Call, list_id: str) -> Iterator[SecurityGroup | RouteTable]:
    """The caller's groups and tables with a rule or route to the list."""
    for group in call.mine(SecurityGroup):
        if any(rule.prefix_list_id == list_id for rule in group.rules):
            yield group
    for table in call.mine(RouteTable):
        if route.find_route(table, list_id) is not None:
            yield table


def _wake_users(call: Call, changed: PrefixList) -> None:
    call.wake_vpcs(*{user.vpc_id for user in _users(call, changed.id)})


@operation("GetManagedPrefixListAssociations", listing=True)
def get_managed_prefix_list_associations(call: Call, *, prefix_list_id: str) -> Answer:
    found = _find_own(call, prefix_list_id)
    return show_page(
        call,
        "PrefixListAssociations",
        list(_users(call, found.id)),
        lambda user: {"ResourceId": user.id, "ResourceOwner": user.account},
        largest=255,
    )


# --- lists ------------------------------------------------------------------------------------------------------------


@operation("GetManagedPrefixListEntries", listing=True)
def get_managed_prefix_list_entries(call: Call, *, prefix_list_id: str, target_version: int | None = None) -> Answer:
    entries = _entries_of(find_prefix_list(call, prefix_list_id), target_version)
    return show_page(
        call,
        "Entries",
        entries,
        lambda entry: {"Cidr": entry.cidr, **({"Description": entry.description} if entry.description else {})},
        smallest=1,
        largest=LARGEST_PAGE,
        key=lambda entry: entry.cidr,
    )


LIST_FILTERS: Final[FilterTable] = {
    "owner-id": lambda found: found.account,
    "prefix-list-id": lambda found: found.id,
    "prefix-list-name": lambda found: found.name,
}


@operation("DescribeManagedPrefixLists", listing=True)
def describe_managed_prefix_lists(call: Call, *, prefix_list_ids: list[str] | None = None) -> Answer:
    found = _find_visible(call, prefix_list_ids) if prefix_list_ids else visible_prefix_lists(call)
    return show_page(
        call, "PrefixLists", choose(call, found, LIST_FILTERS), show_prefix_list, smallest=1, largest=LARGEST_PAGE
    )


SERVICE_FILTERS: Final[FilterTable] = {
    "prefix-list-id": lambda found: found.id,
    "prefix-list-name": lambda found: found.name,
}


@operation("DescribePrefixLists", listing=True)
def describe_prefix_lists(call: Call, *, prefix_list_ids: list[str] | None = None) -> Answer:
    """Those that come with the region: services of gateway endpoints."""
    services = [each for each in visible_prefix_lists(call) if each.account == AWS]
    if prefix_list_ids:
        known = {each.id: each for each in services}
        wanted = dict.fromkeys(ids.check("pl", list_id) for list_id in prefix_list_ids)
        if absent := [list_id for list_id in wanted if list_id not in known]:
            raise ids.missing("pl", absent)
        services = [known[list_id] for list_id in wanted]
    return show_page(
        call,
        "PrefixLists",
        choose(call, services, SERVICE_FILTERS),
        lambda each: {
            "PrefixListId": each.id,
            "PrefixListName": each.name,
            "Cidrs": [entry.cidr for entry in each.entries],
        },
        smallest=1,
    )


def show_prefix_list(found: PrefixList) -> Answer:
    owner = "aws" if found.account == AWS else found.account
    return {
        "PrefixListId": found.id,
        "PrefixListArn": f"arn:aws:ec2:{found.region}:{owner}:prefix-list/{found.id}",
        "PrefixListName": found.name,
        "OwnerId": found.account,
        "AddressFamily": found.family,
        "State": found.state,
        "MaxEntries": found.max_entries,
        "Version": found.version,
        "Tags": tag_set(found.tags),
    }
