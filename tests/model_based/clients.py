"""Clients of the deployment, and the judge of what they are answered.

A call is judged at the instant at which it holds: a writing one while it has the store to itself, a reading one when it
reads. Whatever order the scheduler brings calls into, the reference goes through them in the order of their commits.

    call: authorised? ── token spent before? ── rule of the reference ── run ── commit ──> answer, judged
                                                    Refused(codes)                 error, judged
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any, cast

from botocore.parsers import EC2QueryParser

from orchestrator.api import authorisation, callers, operations
from orchestrator.api.operation import Call, Caller, HostView, Settings, bind_operations, dispatch
from orchestrator.api.protocol import load_service, protocol_for
from orchestrator.api.shapes import Fragment
from orchestrator.model.account import AccessKey, Account
from orchestrator.model.errors import EC2Error
from orchestrator.model.iam import Principal, User
from orchestrator.store import StoreUnavailable, Transaction
from tests.model_based import network_rules  # noqa: F401  (its rules)
from tests.model_based.compute_rules import RULES
from tests.model_based.deployment import Deployment
from tests.model_based.reference import (
    KINDS,
    QUOTAS,
    READERS,
    USER_MAY,
    USER_MAY_BLUE,
    Actor,
    Answer,
    Broken,
    Effect,
    Params,
    Reference,
    Refused,
    Rows,
)
from tests.model_based.scheduler import Task
from tests.model_based.shows import SHOWS, differences, expected

operations.load()
EC2 = load_service("ec2")
OPERATIONS = bind_operations({"ec2": EC2})
PROTOCOL = protocol_for(EC2)
REGION = "us-east-1"
UNAVAILABLE = "Unavailable"  # as the gateway says it

POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Action": ["ec2:Describe*", *(f"ec2:{each}" for each in USER_MAY)], "Resource": "*"},
        {
            "Effect": "Allow",
            "Action": [f"ec2:{each}" for each in USER_MAY_BLUE],
            "Resource": "*",
            "Condition": {"StringEquals": {"aws:ResourceTag/team": "blue"}},
        },
    ],
}


@dataclass
class Request:
    who: Actor
    action: str
    params: Params
    prediction: Effect | Refused | None = None  # None: its handler has not been run
    rows: Rows = field(default_factory=dict)
    outcome: str = "never answered"

    def __str__(self) -> str:
        who = f"{self.who.account[:4]}{'/user' if self.who.user else ''}"
        return f"{who} {self.action} {json.dumps(self.params)}"


def plain(value: Any) -> Any:
    """An answer as a client sees it, as far as it matters."""
    if isinstance(value, Fragment):
        return plain(value.build())
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


class Clients:
    def __init__(self, deployment: Deployment, reference: Reference, accounts: list[str]) -> None:
        self.deployment = deployment
        self.reference = reference
        self.accounts = accounts
        self.requests = 0
        self.answered: dict[str, int] = {}  # by code
        self.accepted: dict[str, int] = {}  # by action
        self.settings = Settings(regions={REGION: ("us-east-1a", "us-east-1b")}, quotas=dict(QUOTAS))

    def enrol(self) -> None:
        """The accounts, each with a user, and what each has of a region from the start."""
        now = self.deployment.clock()
        for number, account in enumerate(self.accounts):
            user = User(
                id=f"AIDA{account}",
                account=account,
                created=now,
                name="user",
                inline={"limited": json.dumps(POLICY)},
            )
            key = AccessKey(id=f"AKIA{account}", account=account, created=now, secret=f"secret {number}", user=user.id)
            with self.deployment.store.write() as tx:
                tx.put_all([Account(id=account, account=account, created=now), user, key])
            dispatch(
                self.deployment.store, OPERATIONS["ec2", "DescribeVpcs"], self._call(Actor(account), "DescribeVpcs", {})
            )

    def _caller(self, who: Actor) -> Caller:
        if not who.user:
            return callers.root(who.account, f"ASIA{who.account}")
        user = self.deployment.store.get(User, f"AIDA{who.account}")
        assert user is not None
        arn = f"arn:aws:iam::{who.account}:user/user"
        return Caller(
            account=who.account,
            access_key=f"AKIA{who.account}",
            arn=arn,
            user_id=user.id,
            principal=Principal(identity=user),
        )

    def _call(self, who: Actor, action: str, params: Params) -> Call:
        self.requests += 1
        return Call(
            service="ec2",
            action=action,
            caller=self._caller(who),
            region=REGION,
            params=params,
            db=self.deployment.store,
            now=self.deployment.clock(),
            request_id=f"request-{self.requests}",
            source="192.0.2.7",
            settings=self.settings,
            host=cast(HostView, None),
            keys=self.deployment.keys,
        )

    # --- what changes something ---

    def write(self, request: Request) -> None:
        """Run it as the task that this is, and judge the answer."""
        m, who = self.reference, request.who
        call = self._call(who, request.action, request.params)
        bound = OPERATIONS["ec2", request.action]

        def handler(call: Call, **arguments: Any) -> Answer:
            request.prediction = self._predict(request)
            return bound.handler(call, **arguments)

        may: Refused | None = None
        try:
            m.check_may(who, request.action, request.params)
        except Refused as refused:
            may = refused
        code, message, answer = "", "", cast(Answer, {})
        try:
            if call.caller.principal is not None:
                authorisation.authorise(call)
            if may is not None:
                raise Broken(f"{who} must not do this")
            answer = plain(dispatch(self.deployment.store, replace(bound, handler=handler), call))
        except EC2Error as error:
            code, message = error.code, str(error)
        except StoreUnavailable:
            request.outcome = UNAVAILABLE
            if request.rows:
                raise Broken(f"it was not written, and has written {list(request.rows)}") from None
            return
        request.outcome = code or json.dumps(answer)[:300]
        self.answered[code or "OK"] = self.answered.get(code or "OK", 0) + 1
        if not code:
            self.accepted[request.action] = self.accepted.get(request.action, 0) + 1
        if may is not None:
            self._expect(request, code, may.codes, message)
        else:
            self._judge(request, code, message, answer)

    def committed(self, tx: Transaction, task: Task) -> None:
        """A task has committed: a call's effect is judged with its answer, which is the next thing that it does."""
        rows = {key: row for key, row in tx.changed.items() if key[0] in READERS}
        self.reference.now = self.deployment.clock()
        request = task.notes.get("call")
        if request is not None:
            request.rows = rows
        else:
            self.reference.check_step(rows)

    def _predict(self, request: Request) -> Effect | Refused:
        try:
            return RULES[request.action](self.reference, request.who, request.params)
        except Refused as refused:
            return refused

    def _judge(self, request: Request, code: str, message: str, answer: Answer) -> None:
        m, params = self.reference, request.params
        token = params.get("ClientToken")
        spent = m.tokens.get((request.who.account, request.action, token)) if token else None
        if spent is not None:
            if request.prediction is not None or request.rows:
                raise Broken(f"the token {token} has an effect twice")
            same = spent[0] == _fingerprint(params)
            self._expect(request, code, ("",) if same else ("IdempotentParameterMismatch",), message)
            if same and answer != spent[1]:
                raise Broken(f"the token {token} was answered {spent[1]}, and is now answered {answer}")
            return
        prediction = request.prediction
        if prediction is None:
            raise Broken(f"{code or answer}: it was not run, and no token says why")
        if params.get("DryRun"):
            codes = prediction.codes if isinstance(prediction, Refused) else ("DryRunOperation",)
            self._expect(request, code, codes, message)
            if request.rows:
                raise Broken(f"a dry run has written {list(request.rows)}")
            return
        effect = prediction.effect if isinstance(prediction, Refused) else prediction
        self._expect(request, code, prediction.codes if isinstance(prediction, Refused) else ("",), message)
        if effect is None:
            if request.rows:
                raise Broken(f"it was refused ({code}) and has written {list(request.rows)}")
            return
        effect(answer, request.rows)
        m.check_call(request.rows)
        if token and not code:
            m.tokens[request.who.account, request.action, token] = (_fingerprint(params), answer)

    def _expect(self, request: Request, code: str, codes: tuple[str, ...], message: str) -> None:
        if code not in codes:
            raise Broken(f"{message or 'it is answered'}; expected {' or '.join(codes) or 'an answer'}")

    # --- what only looks ---

    def read(self, request: Request) -> None:
        """One look, which must be as the reference is at that instant."""
        show = SHOWS[request.action]
        answer = self._look(request.who, request.action, {**show.more, **request.params})
        told = {each[show.id]: show.told(each) for each in show.resources(answer)}
        request.outcome = f"{len(told)} found"
        _agree(told, expected(self.reference, request.who.account, show, request.params))

    def read_ids(self, request: Request) -> None:
        """By id; those that are not the caller's fail the whole call."""
        show = SHOWS[request.action]
        wanted = request.params[show.ids]
        own = {each.id for each in self.reference.of(show.kind, request.who.account)}
        try:
            self.read(request)
        except EC2Error as error:
            request.outcome = error.code
            if error.code != KINDS[show.kind][1] or set(wanted) <= own:
                raise Broken(f"{error} for {wanted}, of which {own & set(wanted)} are there") from error
        else:
            if not set(wanted) <= own:
                raise Broken(f"of {wanted} only {own & set(wanted)} are the caller's")

    def read_pages(self, request: Request) -> None:
        """Page after page, while others go on: what was there throughout comes once, and what never was does not."""
        show = SHOWS[request.action]
        account = request.who.account
        throughout = ever = {each.id for each in self.reference.of(show.kind, account)}
        found: list[str] = []
        params: Params = {**show.more, "MaxResults": show.pages}
        while True:
            answer = self._look(request.who, request.action, params)
            now = {each.id for each in self.reference.of(show.kind, account)}
            throughout, ever = throughout & now, ever | now
            found += [each[show.id] for each in show.resources(answer)]
            token = answer.get("NextToken")
            if not token:
                break
            params["NextToken"] = token
            self.deployment.scheduler.point()
        request.outcome = f"{len(found)} found"
        if len(set(found)) < len(found) or not throughout <= set(found) <= ever:
            raise Broken(f"pages have {found}; there throughout were {throughout}, ever {ever}")

    def read_tags(self, request: Request) -> None:
        answer = self._look(request.who, "DescribeTags", {})
        told = sorted((each["ResourceId"], each["Key"], each["Value"]) for each in answer["Tags"])
        own = [each for each in self.reference.things.values() if each.account == request.who.account]
        known = sorted((each.id, key, value) for each in own for key, value in each.tags.items())
        request.outcome = f"{len(told)} found"
        if told != known:
            raise Broken(f"tags are told as {told}, and are {known}")

    def _look(self, who: Actor, action: str, params: Params) -> Answer:
        """Over the wire, where what was rendered before may be used again."""
        call = self._call(who, action, params)
        if call.caller.principal is not None:
            authorisation.authorise(call)
        model = EC2.operation_model(action)
        body, _ = PROTOCOL.serialise(model, dispatch(self.deployment.store, OPERATIONS["ec2", action], call), "id")
        shape = cast(Any, model.output_shape)
        return cast(Answer, EC2QueryParser().parse({"status_code": 200, "headers": {}, "body": body}, shape))


def _fingerprint(params: Params) -> str:
    return json.dumps({name: value for name, value in params.items() if name != "ClientToken"}, sort_keys=True)


def _agree(told: dict[str, Any], known: dict[str, Any]) -> None:
    if found := differences(told, known):
        raise Broken("\n  ".join(found))
