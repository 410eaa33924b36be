"""Policy documents: what they say, and what follows from them for one request. Pure.

    document ──parse──► Document(statements)
    documents + Request(action, resource, context) ──evaluate──► Decision

          any Deny that applies ──► explicit deny
          any Allow that applies ─► allowed
          neither ────────────────► implicit deny

Rules: "IAM JSON policy elements reference" and "Policy evaluation logic" of Amazon's IAM user guide. Documents are
parsed once for each text. Patterns are matched without regular expressions of the caller's making, and no part of them
is tried twice: a caller's own policy may be asked about a thousand resources.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from enum import Enum
from functools import lru_cache
from ipaddress import ip_address, ip_network
from typing import Any, Final

VERSIONS: Final = ("2012-10-17", "2008-10-17")
MAX_KEY_POLICY: Final = 32 << 10
MAX_DOCUMENT: Final = 20480  # characters; what each kind of policy may have at most is for its operation to check

Context = Mapping[str, tuple[str, ...]]  # lower-case key -> its values; a key that is absent is not there


class PolicyError(Exception):
    """A document that cannot be read: what is wrong, and what is allowed."""


class Decision(Enum):
    ALLOWED = "allowed"
    EXPLICIT_DENY = "explicitDeny"
    IMPLICIT_DENY = "implicitDeny"


@dataclass(frozen=True, slots=True)
class Request:
    action: str  # "ec2:RunInstances"
    resource: str = "*"  # an ARN
    context: Context = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Principals:
    """Who a statement of a trust policy speaks of."""

    anyone: bool = False
    aws: tuple[str, ...] = ()  # ARNs, and account numbers
    services: tuple[str, ...] = ()

    def names(self, *, arns: Iterable[str] = (), service: str = "") -> bool:
        if self.anyone:
            return not service
        return service in self.services if service else any(arn in self.aws for arn in arns)


@dataclass(frozen=True, slots=True)
class Condition:
    operator: str  # without its quantifier and IfExists
    quantifier: str  # "", ForAnyValue, ForAllValues
    if_exists: bool
    key: str  # in lower case
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Statement:
    allows: bool
    actions: tuple[str, ...] = ()  # in lower case
    not_actions: tuple[str, ...] | None = None
    resources: tuple[str, ...] = ()
    not_resources: tuple[str, ...] | None = None
    principals: Principals | None = None
    not_principals: Principals | None = None
    conditions: tuple[Condition, ...] = ()
    sid: str = ""
    variables: bool = True  # whether ${...} means anything: in the newer version of the language

    def applies(self, request: Request) -> bool:
        """Whether it says anything of the request; who asks is not looked at."""
        return self._acts(request) and self._covers(request) and all(_holds(c, self, request) for c in self.conditions)

    def _acts(self, request: Request) -> bool:
        action = request.action.lower()
        if self.not_actions is not None:
            return not any(matches(pattern, action) for pattern in self.not_actions)
        return any(matches(pattern, action) for pattern in self.actions)

    def _covers(self, request: Request) -> bool:
        if self.not_resources is not None:
            # One that cannot be read covers nothing, so all else is covered, except by a statement that would allow.
            filled = [self._fill(pattern, request.context) for pattern in self.not_resources]
            if self.allows and None in filled:
                return False
            return not any(pattern is not None and arn_matches(pattern, request.resource) for pattern in filled)
        if not self.resources:
            return True  # a trust policy is about the role that it is on
        return any(
            (wanted := self._fill(pattern, request.context)) is not None and arn_matches(wanted, request.resource)
            for pattern in self.resources
        )

    def _fill(self, pattern: str, context: Context) -> str | None:
        return fill(pattern, context) if self.variables and "${" in pattern else pattern


@dataclass(frozen=True, slots=True)
class Document:
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    decision: Decision
    statement: Statement | None = None  # the one that decided


def evaluate(documents: Iterable[Document], request: Request) -> Verdict:
    """What all of these policies together say. An explicit deny wins."""
    allowing: Statement | None = None
    for document in documents:
        for statement in document.statements:
            if (allowing is None or not statement.allows) and statement.applies(request):
                if not statement.allows:
                    return Verdict(Decision.EXPLICIT_DENY, statement)
                allowing = statement
    return Verdict(Decision.ALLOWED if allowing else Decision.IMPLICIT_DENY, allowing)


def evaluate_trust(
    document: Document,
    request: Request,
    *,
    arns: Sequence[str] = (),
    account: str = "",
    by_name: bool = False,
    service: str = "",
) -> Verdict:
    """What a role's trust policy, or a key's, says of a principal, who goes by any of `arns`, or of a service. What it
    says of the principal's whole `account` (an ARN) counts too, unless it must be said `by_name`.

    NotPrincipal decides against whoever is listed by account alone: that excepts nobody from a Deny ("AWS JSON policy
    elements: NotPrincipal" has users listed beside their account), and what allows all others does not mean them.
    """
    of_account = [*arns, account]

    def concerns(statement: Statement) -> bool:
        if statement.not_principals is not None:
            listed = of_account if statement.allows else arns
            return not statement.not_principals.names(arns=listed, service=service)
        named = arns if by_name else of_account
        return statement.principals is not None and statement.principals.names(arns=named, service=service)

    concerned = tuple(statement for statement in document.statements if concerns(statement))
    return evaluate([Document(concerned)], request)


# --- patterns ---------------------------------------------------------------------------------------------------------

# What stands for itself in a pattern after a variable has been filled in: ${*}, ${?}, ${$}, and a variable's value.
_LITERAL: Final = {"*": "\ue000", "?": "\ue001"}
_PLAIN: Final = str.maketrans({"\ue000": "*", "\ue001": "?"})
_VARIABLE: Final = re.compile(r"\$\{([^{}]*)\}")


def fill(pattern: str, context: Context) -> str | None:
    """`pattern` with its variables replaced, None when one of them has not exactly one value and no default."""
    parts: list[str] = []
    last = 0
    for found in _VARIABLE.finditer(pattern):
        parts.append(pattern[last : found.start()])
        last = found.end()
        name = found[1].strip()
        if name in ("*", "?"):
            parts.append(_LITERAL[name])
            continue
        if name == "$":
            parts.append("$")
            continue
        key, comma, default = name.partition(",")
        values = context.get(key.strip().lower(), ())
        if len(values) == 1:
            value = values[0]
        elif comma and not values:
            value = default.strip().removeprefix("'").removesuffix("'")
        else:
            return None
        # What a caller is called must not work as a pattern.
        parts.append(value.replace("*", _LITERAL["*"]).replace("?", _LITERAL["?"]))
    parts.append(pattern[last:])
    return "".join(parts)


def matches(pattern: str, text: str) -> bool:
    """Whether `text` is as `pattern`, in which * stands for any characters and ? for one.

    What stands between two stars is looked for once: the first place is as good as any, as it leaves most to the rest.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return len(first) == len(text) and _fits(first, text, 0)
    *middle, last = rest
    place, end = len(first), len(text) - len(last)
    if place > end or not _fits(first, text, 0) or not _fits(last, text, end):
        return False
    for part in middle:
        found = _find(part, text, place, end)
        if found < 0:
            return False
        place = found + len(part)
    return True


def _fits(part: str, text: str, at: int) -> bool:
    """Whether a pattern without stars is what `text` has there."""
    if "?" not in part:
        return text.startswith(part.translate(_PLAIN), at)
    return all(
        letter == "?" or letter.translate(_PLAIN) == there for letter, there in zip(part, text[at:], strict=False)
    )


def _find(part: str, text: str, start: int, end: int) -> int:
    """Where a pattern without stars fits first between `start` and `end` of `text`, or -1. All of its beginnings are
    followed at once, a bit each, so no letter of the text is read twice."""
    if "?" not in part:
        return text.find(part.translate(_PLAIN), start, end)
    anything = sum(1 << place for place, letter in enumerate(part) if letter == "?")
    places: dict[str, int] = {}
    for place, letter in enumerate(part.translate(_PLAIN)):
        places[letter] = places.get(letter, anything) | 1 << place
    begun = 0  # bit n: the last n + 1 letters that were read fit the part's first
    for at in range(start, end):
        begun = (begun << 1 | 1) & places.get(text[at], anything)
        if begun >> len(part) - 1:
            return at + 1 - len(part)
    return -1


def arn_matches(pattern: str, arn: str) -> bool:
    """Part by part between the colons; a pattern that ends early in a * goes on with it."""
    if pattern == "*":
        return True
    wanted, parts = pattern.split(":", 5), arn.split(":", 5)
    if len(parts) < 6:
        return matches(pattern, arn)
    if len(wanted) < 6:
        if not wanted[-1].endswith("*"):
            return False
        wanted += ["*"] * (6 - len(wanted))
    return all(matches(each, part) for each, part in zip(wanted, parts, strict=True))


# --- conditions -------------------------------------------------------------------------------------------------------

Test = Callable[[str, str], bool]  # (value of the policy, value of the request)


def _number(test: Callable[[Decimal, Decimal], bool]) -> Test:
    def compare(wanted: str, value: str) -> bool:
        try:
            return test(Decimal(value), Decimal(wanted))
        except InvalidOperation:
            return False

    return compare


def _moment(text: str) -> datetime:
    """ISO 8601, or seconds since 1970."""
    if re.fullmatch(r"\d{1,12}", text, re.ASCII):
        return datetime.fromtimestamp(int(text), UTC)
    found = datetime.fromisoformat(text)
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)


def _date(test: Callable[[datetime, datetime], bool]) -> Test:
    def compare(wanted: str, value: str) -> bool:
        try:
            return test(_moment(value), _moment(wanted))
        except (ValueError, OverflowError, OSError):
            return False

    return compare


def _in_network(wanted: str, value: str) -> bool:
    try:
        return ip_address(value) in ip_network(wanted, strict=False)
    except ValueError:
        return False


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _is_number(text: str) -> bool:
    try:
        return Decimal(text).is_finite()
    except InvalidOperation:
        return False


def _is_date(text: str) -> bool:
    try:
        _moment(text)
    except (ValueError, OverflowError, OSError):
        return False
    return True


def _equal(wanted: str, value: str) -> bool:
    return wanted.translate(_PLAIN) == value


@dataclass(frozen=True, slots=True)
class _Operator:
    test: Test
    negated: bool = False  # holds when no value passes the test
    valid: Callable[[str], bool] = field(default=lambda _: True)
    allowed: str = ""  # what `valid` takes, for people


def _pair(name: str, denied: str, test: Test, **more: Any) -> dict[str, _Operator]:
    return {name: _Operator(test, **more), denied: _Operator(test, negated=True, **more)}


_NUMBERS: Final[dict[str, Any]] = {"valid": _is_number, "allowed": "a number"}
_DATES: Final[dict[str, Any]] = {"valid": _is_date, "allowed": "a date of ISO 8601, or seconds since 1970"}
_NETWORKS: Final[dict[str, Any]] = {"valid": _is_network, "allowed": "an address or a CIDR block"}
_BOOLEANS: Final[dict[str, Any]] = {"valid": lambda text: text.lower() in ("true", "false"), "allowed": "true or false"}
_ORDERS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "LessThan": lambda a, b: a < b,
    "LessThanEquals": lambda a, b: a <= b,
    "GreaterThan": lambda a, b: a > b,
    "GreaterThanEquals": lambda a, b: a >= b,
}

OPERATORS: Final[dict[str, _Operator]] = {
    **_pair("StringEquals", "StringNotEquals", _equal),
    **_pair(
        "StringEqualsIgnoreCase",
        "StringNotEqualsIgnoreCase",
        lambda wanted, value: wanted.translate(_PLAIN).casefold() == value.casefold(),
    ),
    **_pair("StringLike", "StringNotLike", matches),
    **_pair("ArnEquals", "ArnNotEquals", arn_matches),
    **_pair("ArnLike", "ArnNotLike", arn_matches),
    **_pair("NumericEquals", "NumericNotEquals", _number(lambda a, b: a == b), **_NUMBERS),
    **_pair("DateEquals", "DateNotEquals", _date(lambda a, b: a == b), **_DATES),
    **_pair("IpAddress", "NotIpAddress", _in_network, **_NETWORKS),
    **{f"Numeric{name}": _Operator(_number(order), **_NUMBERS) for name, order in _ORDERS.items()},
    **{f"Date{name}": _Operator(_date(order), **_DATES) for name, order in _ORDERS.items()},
    "Bool": _Operator(lambda wanted, value: wanted.lower() == value.lower(), **_BOOLEANS),
    "BinaryEquals": _Operator(_equal),
    "Null": _Operator(lambda wanted, value: False, **_BOOLEANS),
}
_WITH_VARIABLES: Final = ("String", "Arn")


def _holds(condition: Condition, statement: Statement, request: Request) -> bool:
    """Any of the policy's values is enough; of a negated operator, all of them must differ."""
    values = request.context.get(condition.key, ())
    if condition.operator == "Null":
        return any((wanted.lower() == "true") == (not values) for wanted in condition.values)
    operator = OPERATORS[condition.operator]
    if not values:
        if condition.if_exists or condition.quantifier == "ForAllValues":
            return True
        return operator.negated and not condition.quantifier
    wanted: list[str] = []
    for value in condition.values:
        if statement.variables and "${" in value and condition.operator.startswith(_WITH_VARIABLES):
            filled = fill(value, request.context)
            if filled is not None:
                wanted.append(filled)
            elif operator.negated and statement.allows:
                return False  # an exception that nobody can read is not one from which leave follows
        else:
            wanted.append(value)

    def passes(value: str) -> bool:
        return any(operator.test(each, value) for each in wanted) != operator.negated

    if condition.quantifier == "ForAnyValue":
        return any(map(passes, values))
    if condition.quantifier == "ForAllValues" or operator.negated:
        return all(map(passes, values))
    return any(map(passes, values))


# --- reading ----------------------------------------------------------------------------------------------------------

_STATEMENT_MEMBERS: Final = (
    "Sid",
    "Effect",
    "Principal",
    "NotPrincipal",
    "Action",
    "NotAction",
    "Resource",
    "NotResource",
    "Condition",
)
_ACTION: Final = re.compile(r"\*|[a-zA-Z0-9-]+:[a-zA-Z0-9*?]+", re.ASCII)
_SID: Final = re.compile(r"[a-zA-Z0-9 ]*", re.ASCII)
_ACCOUNT: Final = re.compile(r"\d{12}", re.ASCII)
_FORBIDDEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ue000\ue001]")


def parse(text: str) -> Document:
    """A policy of an identity: it names resources and no principals. Raises PolicyError."""
    return _parse(text, _IDENTITY)


def parse_trust(text: str) -> Document:
    """A role's trust policy: it names principals and no resources. Raises PolicyError."""
    return _parse(text, _TRUST)


def parse_key_policy(text: str) -> Document:
    """A key's policy: it names principals and resources, of which its key is the only one. Raises PolicyError."""
    return _parse(text, _KEY)


_IDENTITY, _TRUST, _KEY = "identity", "trust", "key"


@lru_cache(maxsize=4096)
def _parse(text: str, use: str) -> Document:
    most = MAX_KEY_POLICY if use == _KEY else MAX_DOCUMENT
    if len(text) > most:
        raise PolicyError(f"A policy has at most {most} characters; this has {len(text)}")
    if _FORBIDDEN.search(text):
        raise PolicyError("A policy has no control characters and none that are for private use")
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"Syntax errors in policy: {error}") from None
    if not isinstance(found, dict):
        raise PolicyError("A policy is an object with Version and Statement")
    for name in found:
        if name not in ("Version", "Id", "Statement"):
            raise PolicyError(f"A policy has no element '{name[:40]}': it has Version, Id and Statement")
    version = found.get("Version", "2008-10-17")
    if version not in VERSIONS:
        raise PolicyError(f"Version must be one of {', '.join(VERSIONS)}")
    statements = found.get("Statement")
    if isinstance(statements, dict):
        statements = [statements]
    if not isinstance(statements, list) or not statements:
        raise PolicyError("Statement must be an object or a list of at least one")
    read = tuple(_statement(each, use, version == VERSIONS[0]) for each in statements)
    sids = [each.sid for each in read if each.sid]
    if len(set(sids)) < len(sids):
        raise PolicyError("Statement IDs (Sid) in a single policy must be unique")
    return Document(read)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name is given twice in one object")
    if any(_FORBIDDEN.search(text) for text in _strings(found.values())) or any(map(_FORBIDDEN.search, found)):
        raise ValueError("control characters, and those for private use, are not allowed")
    return found


def _strings(values: Iterable[Any]) -> Iterable[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from (each for each in value if isinstance(each, str))


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _statement(found: Any, use: str, variables: bool) -> Statement:
    if not isinstance(found, dict):
        raise PolicyError("Each statement is an object")
    for name in found:
        if name not in _STATEMENT_MEMBERS:
            raise PolicyError(f"A statement has no element '{name[:40]}': it may have {', '.join(_STATEMENT_MEMBERS)}")
    effect, sid = found.get("Effect"), found.get("Sid", "")
    if effect not in ("Allow", "Deny"):
        raise PolicyError("Effect must be Allow or Deny")
    if not isinstance(sid, str) or not _SID.fullmatch(sid):
        raise PolicyError("Sid must be letters and digits")
    actions, not_actions = _either(found, "Action", "NotAction")
    for action in (*actions, *(not_actions or ())):
        if not _ACTION.fullmatch(action):
            raise PolicyError(f"The action '{action[:60]}' must be SERVICE:ACTION, or *")
    resources: tuple[str, ...] = ()
    not_resources: tuple[str, ...] | None = None
    principals: Principals | None = None
    not_principals: Principals | None = None
    if use != _IDENTITY:
        if use == _TRUST and (name := next((n for n in ("Resource", "NotResource") if n in found), "")):
            raise PolicyError(f"A trust policy has no {name}: it is about its role")
        if ("Principal" in found) == ("NotPrincipal" in found):
            raise PolicyError(f"A statement of a {use} policy has a Principal or a NotPrincipal")
        if "Principal" in found:
            principals = _principals(found["Principal"])
        else:
            not_principals = _principals(found["NotPrincipal"])
    else:
        for name in ("Principal", "NotPrincipal"):
            if name in found:
                raise PolicyError(f"Policy document should not specify a principal: it has a {name}")
    if use != _TRUST:
        resources, not_resources = _either(found, "Resource", "NotResource")
        for resource in (*resources, *(not_resources or ())):
            if resource != "*" and not resource.startswith(("arn:", "${")):
                raise PolicyError(f'Resource {resource[:80]} must be in ARN format or "*".')
    return Statement(
        allows=effect == "Allow",
        actions=tuple(action.lower() for action in actions),
        not_actions=None if not_actions is None else tuple(action.lower() for action in not_actions),
        resources=resources,
        not_resources=not_resources,
        principals=principals,
        not_principals=not_principals,
        conditions=tuple(_conditions(found.get("Condition", {}))),
        sid=sid,
        variables=variables,
    )


def _either(found: Mapping[str, Any], name: str, negated: str) -> tuple[tuple[str, ...], tuple[str, ...] | None]:
    if (name in found) == (negated in found):
        raise PolicyError(f"A statement has either {name} or {negated}")
    if name in found:
        return _texts(found[name], name), None
    return (), _texts(found[negated], negated)


def _texts(value: Any, name: str) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(each, str) and each for each in values):
        raise PolicyError(f"{name} must be a string or a list of at least one")
    return tuple(values)


def _principals(value: Any) -> Principals:
    if value == "*":
        return Principals(anyone=True)
    if not isinstance(value, dict) or not value:
        raise PolicyError('A principal is "*", or an object with AWS or Service')
    aws: list[str] = []
    services: tuple[str, ...] = ()
    anyone = False
    for kind, given in value.items():
        named = _texts(given, f"Principal {kind}")
        if kind == "Service":
            services = named
        elif kind == "AWS":
            for each in named:
                if each == "*":
                    anyone = True
                elif _ACCOUNT.fullmatch(each):
                    aws.append(f"arn:aws:iam::{each}:root")
                elif each.startswith(("arn:aws:iam::", "arn:aws:sts::")) and "*" not in each:
                    aws.append(each)
                else:
                    raise PolicyError(f"Invalid principal in policy: '{each[:80]}' is no account and no ARN of one")
        else:
            raise PolicyError(f"Principals of the kind '{kind[:40]}' are not known here: AWS and Service are")
    return Principals(anyone, tuple(aws), services)


def _conditions(found: Any) -> Iterable[Condition]:
    if not isinstance(found, dict):
        raise PolicyError("Condition is an object of operators")
    for name, keys in found.items():
        quantifier, colon, operator = name.rpartition(":")
        if_exists = operator.endswith("IfExists")
        operator = operator.removesuffix("IfExists")
        known = OPERATORS.get(operator)
        if (
            known is None
            or (colon and quantifier not in ("ForAnyValue", "ForAllValues"))
            or (operator == "Null" and (if_exists or quantifier))
        ):
            raise PolicyError(f"Invalid condition operator '{name[:60]}': known are {', '.join(sorted(OPERATORS))}")
        if not isinstance(keys, dict):
            raise PolicyError(f"{name} is an object of keys and values")
        for key, given in keys.items():
            values = given if isinstance(given, list) else [given]
            texts = tuple(_scalar(each, name) for each in values)
            for text in texts:
                if not known.valid(text):
                    raise PolicyError(f"'{text[:60]}' cannot be compared by {operator}: it takes {known.allowed}")
            yield Condition(operator, quantifier, if_exists, key.lower(), texts)


def _scalar(value: Any, operator: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    if isinstance(value, int | float):
        return str(value)
    raise PolicyError(f"The values of {operator} are strings, numbers and booleans")
