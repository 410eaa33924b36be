"""Binds a function to an operation of a service model, and does once what every operation does.

    @operation("RunInstances", writes=True)
    def run_instances(call: Call, *, min_count: int, max_count: int, image_id: str | None = None, ...) -> Answer:

The keyword-only parameters are the members of the operation's input that it takes, in snake case; a name that the
model does not have is an error at start-up, and a member that the caller gives and the function does not take is
answered `UnsupportedOperation` rather than ignored. Values below the top level keep the model's names (CamelCase), as
do answers, which the serialiser checks.

A writing operation runs inside one transaction. So DryRun is the operation itself without the commit, and a client
token is looked up, and spent, where nobody can come in between.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import inspect
import json
import socket
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from itertools import islice
from operator import attrgetter
from typing import Any, Protocol, TypeVar

import msgspec
from botocore import xform_name
from botocore.model import OperationModel, ServiceModel

from orchestrator.api.audit import Note
from orchestrator.model import ids, quota
from orchestrator.model.account import Account
from orchestrator.model.errors import EC2Error, PartlyDone, dry_run, unsupported
from orchestrator.model.filters import FilterTable, compile_filters
from orchestrator.model.iam import Principal
from orchestrator.model.kms import Keys
from orchestrator.model.prefix_list import service_list_id, service_list_name, service_lists
from orchestrator.model.rate import Rate
from orchestrator.model.resource import EVERY_REGION, Resource
from orchestrator.model.trace import Trace
from orchestrator.model.vpc import PrefixList, Vpc, default_network
from orchestrator.store import Store, Transaction

Answer = dict[str, Any]
R = TypeVar("R", bound=Resource)
T = TypeVar("T")  # what a list lists: resources, and what is the same for all (types, regions)

# Members that are dealt with here: for every operation that has them, and for those that list.
_EVERYWHERE = frozenset({"DryRun", "ClientToken"})
_LISTING = frozenset({"MaxResults", "NextToken", "Filters"})
_OTHER_ZONES = ("a", "b", "c")  # of a region that is not configured, where any is taken


@dataclass(frozen=True, slots=True)
class LayerUse:
    """A layer's file as the host has it."""

    layer_id: str
    size_bytes: int  # virtual
    own_bytes: int  # on the file system
    parent_id: str


class HostView(Protocol):
    """The little that operations may see of what runs. Nothing here changes anything.

    What a machine cannot give just now (it is going down, say) is an OSError.
    """

    def console(self, instance_id: str) -> bytes: ...

    def screenshot(self, instance_id: str) -> bytes: ...

    def console_socket(self, instance_id: str) -> socket.socket: ...

    def connect(self, vpc_id: str, address: str, port: int, timeout_s: float) -> socket.socket: ...

    def network_plan(self, vpc_id: str) -> str:
        """What the host would load and run for a VPC; empty when nothing of it is on the host."""

    def trace(
        self,
        vpc_ids: Sequence[str],
        interface_id: str,
        source: str,
        destination: str,
        protocol: str,
        destination_port: int = 0,
    ) -> Trace:
        """A packet's way through these VPCs, by their rows; from outside when `interface_id` is empty."""

    def live_trace(
        self, vpc_id: str, interface_id: str, source: str, destination: str, protocol: str, destination_port: int = 0
    ) -> list[str]:
        """What the host's rules do with a packet that is sent in the place of a guest's."""

    def recipes(self) -> list[str]: ...

    def storage(self) -> list[LayerUse]:
        """What lies on the disk, layer by layer."""

    def storage_room(self) -> tuple[int, int]:
        """Bytes free, and in all, where layers are kept."""

    def verify_layer(self, layer_id: str) -> list[str]:
        """What is wrong with a layer's file: a line for people each."""

    def receive_upload(self, upload_id: str, chunks: Iterator[bytes], limit_bytes: int) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What operations need to know of this deployment."""

    regions: Mapping[str, tuple[str, ...]]  # region -> its zones
    any_region: bool = False  # take others too, as emulators do
    endpoint: str = ""
    public_range: IPv4Network = IPv4Network("203.0.113.0/24")
    ipv6_range: IPv6Network = IPv6Network("2001:db8:ec00::/40")  # a VPC gets a /56 of it
    processors: float = 1e9  # that running instances may have in all, overcommit included
    memory_mib: float = 1e12
    quotas: quota.Quotas = field(default_factory=dict)  # where they are not as in the table
    rates: Mapping[str, Rate] = field(default_factory=dict)  # of requests, by kind of action; unlimited without one
    import_dir: str = ""  # below which files of the host can be imported; empty: nowhere

    def zones(self, region: str) -> tuple[str, ...]:
        return self.regions.get(region) or tuple(region + letter for letter in _OTHER_ZONES)


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    account: str
    access_key: str
    arn: str
    user_id: str = ""
    principal: Principal | None = None  # None: the account's root, who may do all that the account may


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request, authenticated and parsed. `db` sees the operation's own writes; only writing ones may use `tx`."""

    service: str
    action: str
    caller: Caller
    region: str
    params: dict[str, Any]
    db: Store | Transaction
    now: datetime
    request_id: str
    source: str
    settings: Settings
    host: HostView
    keys: Keys
    prepared: Any = None  # what the operation's `beforehand` made
    note: Note | None = None  # for the audit log

    @property
    def tx(self) -> Transaction:
        if not isinstance(self.db, Transaction):
            raise TypeError(f"{self.action} writes, but was not declared so")
        return self.db

    @property
    def account(self) -> str:
        return self.caller.account

    @property
    def zones(self) -> tuple[str, ...]:
        return self.settings.zones(self.region)

    def wake_vpcs(self, *vpc_ids: str) -> None:
        """Have these VPCs, as far as they are there, made on the host what their rows say now."""
        for vpc_id in vpc_ids:
            vpc = self.tx.get(Vpc, vpc_id)
            if vpc is not None:
                self.tx.wake(vpc)

    def sees(self, resource: Resource) -> bool:
        """Whether it is the caller's own, in this region (or one that is in every region)."""
        return resource.account == self.account and resource.region in (self.region, EVERY_REGION)

    def mine(self, kind: type[R], **where: Any) -> list[R]:
        """The caller's own of a kind in this region, narrowed by `where`."""
        chosen = self.db.all(kind, **(where or {"account": self.account}))
        return [resource for resource in chosen if self.sees(resource)]

    def find(self, kind: type[R], prefix: str, resource_id: str) -> R:
        """The caller's own resource of that id, or EC2's Malformed or NotFound."""
        return self.find_all(kind, prefix, [resource_id])[0]

    def find_all(self, kind: type[R], prefix: str, resource_ids: Iterable[str]) -> list[R]:
        """All of them, each once, or the error that EC2 gives for the call as a whole."""
        wanted = list(dict.fromkeys(ids.check(prefix, resource_id) for resource_id in resource_ids))
        found = [self.db.get(kind, resource_id) for resource_id in wanted]
        seen = [resource for resource in found if resource is not None and self.sees(resource)]
        if len(seen) < len(wanted):
            have = {resource.id for resource in seen}
            raise ids.missing(prefix, [resource_id for resource_id in wanted if resource_id not in have])
        return seen


Handler = Callable[..., Answer]


@dataclass(frozen=True, slots=True)
class Operation:
    service: str
    name: str
    handler: Handler
    writes: bool
    listing: bool  # takes Filters, MaxResults and NextToken
    beforehand: Callable[[Mapping[str, Any]], Any] | None = None  # slow work, done before the transaction
    names: Mapping[str, str] = field(default_factory=dict)  # CamelCase member -> keyword
    model: OperationModel | None = None

    def bind(self, model: ServiceModel) -> Operation:
        """Checked against the model: TypeError where the function and the model differ."""
        if self.name not in model.operation_names:
            raise TypeError(f"{self.service} has no operation {self.name}")
        shape = model.operation_model(self.name).input_shape
        members = {xform_name(name): name for name in (shape.members if shape else {})}
        parameters = {
            name: parameter
            for name, parameter in inspect.signature(self.handler).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY
        }
        unknown = sorted(set(parameters) - set(members))
        if unknown:
            raise TypeError(f"{self.name} takes {unknown}, which the model does not have")
        required = {xform_name(name) for name in (shape.required_members if shape else [])}
        for name, parameter in parameters.items():
            if parameter.default is inspect.Parameter.empty and name not in required:
                raise TypeError(f"{self.name} needs {name}, which the model does not require: give it a default")
        return replace(self, names={members[name]: name for name in parameters}, model=model.operation_model(self.name))

    def arguments(self, params: Mapping[str, Any]) -> dict[str, Any]:
        chosen: dict[str, Any] = {}
        for name, value in params.items():
            if name in self.names:
                chosen[self.names[name]] = value
            elif name not in _EVERYWHERE and not (self.listing and name in _LISTING):
                raise unsupported(f"{self.name} does not take the parameter {name} here")
        return chosen


_DECLARED: dict[tuple[str, str], Operation] = {}


def operation(
    name: str,
    *,
    service: str = "ec2",
    writes: bool = False,
    listing: bool = False,
    beforehand: Callable[[Mapping[str, Any]], Any] | None = None,
) -> Callable[[Handler], Handler]:
    """Declare that the function answers an operation of a service.

    `beforehand` gets the request's parameters and does what is slow and writes nothing, while others may still write;
    the function finds its result in `call.prepared`.
    """

    def declare(handler: Handler) -> Handler:
        _DECLARED[(service, name)] = Operation(service, name, handler, writes, listing, beforehand)
        return handler

    return declare


def bind_operations(models: Mapping[str, ServiceModel]) -> dict[tuple[str, str], Operation]:
    """All declared operations of these services, checked against their models."""
    return {key: declared.bind(models[key[0]]) for key, declared in _DECLARED.items() if key[0] in models}


def dispatch(store: Store, bound: Operation, call: Call) -> Answer:
    """Run one operation: the region's defaults, the client token, the transaction, DryRun, the audit event."""
    arguments = bound.arguments(call.params)
    provision(store, call)
    rehearsal = bool(call.params.get("DryRun"))
    if not bound.writes:
        answer = bound.handler(call, **arguments)
        if rehearsal:
            raise dry_run()
        return answer
    token = call.params.get("ClientToken")
    scope = f"{call.account}/{call.region}/{call.service}/{call.action}"
    if bound.beforehand is not None:
        call = replace(call, prepared=bound.beforehand(call.params))
    with store.write() as tx:
        call = replace(call, db=tx)
        if tx.get(Account, call.account) is None:  # it went while the call waited for the store
            raise _closed(call)
        if token and (spent := store.token(scope, token)):
            if spent[0] != _fingerprint(call.params):
                raise EC2Error(
                    "IdempotentParameterMismatch",
                    f"The client token '{token}' was used before, with other parameters",
                )
            if rehearsal:
                raise dry_run()
            earlier: Answer = msgspec.msgpack.decode(spent[1])
            return earlier
        refused: PartlyDone | None = None
        answer = {}
        try:
            answer = bound.handler(call, **arguments)
        except PartlyDone as partly:
            refused = partly
        quota.check_changes(store, tx.changed, call.settings.quotas)
        if rehearsal:
            raise refused or dry_run()
        if token and refused is None:
            tx.spend_token(scope, token, _fingerprint(call.params), msgspec.msgpack.encode(answer))
        note = call.note or _note(call)
        note.params, note.answer, note.model, note.read_only = call.params, answer, bound.model, False
        if refused is not None:
            note.refuse(refused.code, refused.message, refused.http_status)
        tx.record(note.event())
    note.recorded = True
    if refused is not None:
        raise refused
    return answer


def provision(store: Store, call: Call) -> None:
    """Give a region its default VPC when an account first comes to it, and AWS's prefix lists when anyone does.

    Where callers are taken at their word, their accounts are made here. AuthFailure for one that was there when the
    caller was looked up, and has been closed since: nobody could reach what it would be given.
    """
    account = store.get(Account, call.account)
    furnished = store.get(PrefixList, service_list_id(service_list_name(call.region, "s3"))) is not None
    if furnished and account is not None and call.region in account.regions:
        return
    was_there = account is not None or call.caller.principal is not None
    with store.write() as tx:
        account = tx.get(Account, call.account)
        if account is None:
            if was_there:
                raise _closed(call)
            account = Account(id=call.account, account=call.account, created=call.now)
        if call.region not in account.regions:
            tx.put(replace(account, regions=(*account.regions, call.region)))
            tx.put_all(default_network(call.account, call.region, call.zones, call.now))
        if not furnished:
            tx.put_all(service_lists(call.region, call.now))


def _closed(call: Call) -> EC2Error:
    return EC2Error("AuthFailure", f"The account {call.account} has been closed", 401)


def _fingerprint(params: Mapping[str, Any]) -> str:
    relevant = {name: value for name, value in params.items() if name not in ("DryRun", "ClientToken")}
    return hashlib.sha256(json.dumps(relevant, sort_keys=True, default=repr).encode()).hexdigest()


def _note(call: Call) -> Note:
    return Note(
        call.now,
        call.request_id,
        call.source,
        service=call.service,
        action=call.action,
        region=call.region,
        caller=call.caller,
    )


# --- lists: ids, filters and pages ------------------------------------------------------------------------------------


def choose(call: Call, resources: Sequence[R], table: FilterTable) -> list[R]:
    """Those that the request's Filters let through."""
    test = filter_test(call, table)
    return list(resources) if test is None else [resource for resource in resources if test(resource)]


def filter_test(call: Call, table: FilterTable) -> Callable[[Any], bool] | None:
    """Whether the request's Filters let a resource through; None when it has none."""
    filters = call.params.get("Filters")
    return compile_filters(filters, table, lambda resource: resource.tags) if filters else None


def page(
    call: Call,
    resources: Sequence[T],
    *,
    smallest: int = 5,
    largest: int = 1000,
    key: Callable[[Any], str] = attrgetter("id"),
    test: Callable[[T], bool] | None = None,
) -> tuple[list[T], str | None]:
    """One page in the order of `key`, which must be unique, and the token of the next, None on the last. Of `resources`
    those count that pass `test`, which is asked of no more than the page needs.

    Without MaxResults the answer is whole, as EC2's is.
    """
    size, token = call.params.get("MaxResults"), call.params.get("NextToken")
    if size is None and token is None:
        return [resource for resource in resources if test is None or test(resource)], None
    if size is not None and not smallest <= size <= max(largest, smallest):
        raise EC2Error(
            "InvalidParameterValue",
            f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value from {smallest} to {largest}.",
        )
    ordered = sorted(resources, key=key)
    if token is not None:
        after = _read_token(call, token)
        ordered = [resource for resource in ordered if key(resource) > after]
    limit = size or largest
    passing = iter(ordered) if test is None else filter(test, ordered)
    chosen = list(islice(passing, limit))
    if next(passing, None) is None:
        return chosen, None
    return chosen, _make_token(call, key(chosen[-1]))


def with_client_token(call: Call, answer: Answer) -> Answer:
    """For those operations that answer the token that they were given."""
    token = call.params.get("ClientToken")
    return {**answer, "ClientToken": token} if token else answer


def show_page(
    call: Call,
    member: str,
    resources: Sequence[T],
    show: Callable[[T], Any],
    *,
    smallest: int = 5,
    largest: int = 1000,
    key: Callable[[Any], str] = lambda resource: resource.id,
) -> Answer:
    """The answer of a listing: one `page` of what was found, each of it shown, and the token of the next."""
    chosen, token = page(call, resources, smallest=smallest, largest=largest, key=key)
    answer: Answer = {member: [show(resource) for resource in chosen]}
    if token:
        answer["NextToken"] = token
    return answer


def _make_token(call: Call, after: str) -> str:
    text = json.dumps([call.action, call.account, call.region, after])
    return base64.urlsafe_b64encode(text.encode()).decode()


def _read_token(call: Call, token: str) -> str:
    try:
        action, account, region, after = json.loads(base64.b64decode(token, altchars=b"-_", validate=True))
        genuine = (action, account, region) == (call.action, call.account, call.region)
    except (binascii.Error, ValueError, TypeError, RecursionError):
        genuine = False
    if not genuine or not isinstance(after, str):
        raise EC2Error("InvalidNextToken", f"The token '{token[:80]}' is not one that {call.action} gave out")
    return after


def describe(
    name: str,
    *,
    kind: type[R],
    answer: str,
    ids_parameter: str,
    prefix: str,
    filters: FilterTable | Callable[[Call], FilterTable],
    smallest: int = 5,
    largest: int = 1000,
    ids_or_pages: bool = False,
) -> Callable[[Callable[[Call, R], Answer]], Callable[[Call, R], Answer]]:
    """Declare the plain Describe of a kind: by ids, filters and pages; the function shows one resource.

    `ids_parameter` is the request's list of ids ("VolumeIds"), `answer` the member that lists what was found. Filters
    on what other resources say take a function that makes their table for a call. With `ids_or_pages`, ids and
    MaxResults do not go together.
    """
    keyword = xform_name(ids_parameter)

    def declare(view: Callable[[Call, R], Answer]) -> Callable[[Call, R], Answer]:
        def handler(call: Call, **given: Any) -> Answer:
            wanted = given.get(keyword)
            if ids_or_pages and wanted and call.params.get("MaxResults") is not None:
                raise EC2Error(
                    "InvalidParameterCombination", f"The parameter {ids_parameter} cannot be used with MaxResults"
                )
            found = call.find_all(kind, prefix, wanted) if wanted else call.mine(kind)
            table = filters(call) if callable(filters) else filters
            return show_page(
                call,
                answer,
                choose(call, found, table),
                lambda resource: view(call, resource),
                smallest=smallest,
                largest=largest,
            )

        handler.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
            [
                inspect.Parameter("call", inspect.Parameter.POSITIONAL_OR_KEYWORD),
                inspect.Parameter(keyword, inspect.Parameter.KEYWORD_ONLY, default=None),
            ]
        )
        operation(name, listing=True)(handler)
        return view

    return declare
