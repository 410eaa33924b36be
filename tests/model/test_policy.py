"""Policy documents: what is read, and what follows for a request."""

from __future__ import annotations

import json
import re
import time
from fnmatch import translate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.model.policy import (
    Decision,
    PolicyError,
    Request,
    arn_matches,
    evaluate,
    evaluate_trust,
    fill,
    matches,
    parse,
    parse_trust,
)

ALLOWED, DENIED, SILENT = Decision.ALLOWED, Decision.EXPLICIT_DENY, Decision.IMPLICIT_DENY
INSTANCE = "arn:aws:ec2:us-east-1:111122223333:instance/i-1"


def text(*statements: dict[str, Any], version: str = "2012-10-17") -> str:
    return json.dumps({"Version": version, "Statement": list(statements)})


def statement(effect: str = "Allow", **changes: Any) -> dict[str, Any]:
    found = {"Effect": effect, "Action": "*", "Resource": "*", **changes}
    return {name: value for name, value in found.items() if value is not None}


def decide(
    *statements: dict[str, Any], action: str = "ec2:StopInstances", resource: str = INSTANCE, **context: Any
) -> Decision:
    facts = {key.lower(): (value,) if isinstance(value, str) else tuple(value) for key, value in context.items()}
    return evaluate([parse(text(*statements))], Request(action, resource, facts)).decision


def holds(operator: str, key: str, wanted: object, **context: Any) -> bool:
    facts = {name.replace("__", ":"): value for name, value in context.items()}
    return decide(statement(Condition={operator: {key: wanted}}), **facts) is ALLOWED


# --- effect, action, resource -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        ([], None),
        ([statement()], ALLOWED),
        ([statement(Action="ec2:*")], ALLOWED),
        ([statement(Action="EC2:stopINSTANCES")], ALLOWED),
        ([statement(Action="ec2:St?p*")], ALLOWED),
        ([statement(Action=["ec2:StartInstances", "ec2:StopInstances"])], ALLOWED),
        ([statement(Action="ec2:Stop")], SILENT),
        ([statement(Action="iam:*")], SILENT),
        ([statement(Action=None, NotAction="iam:*")], ALLOWED),
        ([statement(Action=None, NotAction=["iam:*", "ec2:Stop*"])], SILENT),
        ([statement("Deny")], DENIED),
        ([statement(), statement("Deny", Action="ec2:Stop*")], DENIED),
        ([statement("Deny", Action="ec2:Stop*"), statement()], DENIED),
        ([statement(), statement("Deny", Action=None, NotAction="ec2:*")], ALLOWED),
        ([statement(Resource=INSTANCE)], ALLOWED),
        ([statement(Resource="arn:aws:ec2:*:*:instance/*")], ALLOWED),
        ([statement(Resource="arn:aws:ec2:*:*:volume/*")], SILENT),
        ([statement(Resource="arn:aws:ec2:*")], ALLOWED),
        ([statement(Resource="arn:aws:ec2:us-east-1")], SILENT),
        ([statement(Resource=None, NotResource="arn:aws:ec2:*:*:volume/*")], ALLOWED),
        ([statement(Resource=None, NotResource="arn:aws:ec2:*:*:instance/i-?")], SILENT),
        ([statement(), statement("Deny", Resource=None, NotResource="arn:aws:ec2:us-*:*:*")], ALLOWED),
    ],
)
def test_what_a_document_says_of_a_request(statements: list[dict[str, Any]], expected: Decision | None) -> None:
    if expected is None:
        assert evaluate([], Request("ec2:StopInstances")).decision is SILENT
    else:
        assert decide(*statements) is expected


def test_a_deny_in_one_document_wins_over_an_allow_in_another() -> None:
    documents = [parse(text(statement())), parse(text(statement("Deny", Action="ec2:*", Sid="No")))]
    for order in (documents, documents[::-1]):
        verdict = evaluate(order, Request("ec2:StopInstances", INSTANCE))
        assert verdict.decision is DENIED
        assert verdict.statement is not None and verdict.statement.sid == "No"


def test_a_star_does_not_reach_over_a_colon_of_an_arn() -> None:
    assert arn_matches("arn:aws:ec2:*:1:instance/*", "arn:aws:ec2:us-east-1:1:instance/i-1")
    assert not arn_matches("arn:aws:ec2:*:instance/i-1", "arn:aws:ec2:us-east-1:1:instance/i-1")
    assert not arn_matches("arn:aws:ec2:us*:volume/*:instance/*", "arn:aws:ec2:us-east-1:1:instance/i-1")
    assert arn_matches("arn:aws:iam::1:user/team/*", "arn:aws:iam::1:user/team/a/b:c")


@given(st.text("ab*?", max_size=12), st.text("ab", max_size=12))
def test_patterns_match_as_shell_patterns_do(pattern: str, value: str) -> None:
    assert matches(pattern, value) == (re.match(translate(pattern), value) is not None)


@pytest.mark.parametrize(
    "pattern",
    [
        "*a" * 500 + "b",
        "*" + "a" * 1500 + "b",
        "*" + "a" * 1500 + "b*",
        "*" + "a" * 1500 + "?b*",
        "*" + "a?" * 750 + "b*",
    ],
    ids=["many stars", "at the end", "in between", "with any letter", "with many"],
)
def test_a_hostile_pattern_takes_no_time(pattern: str) -> None:
    began = time.process_time()
    for _ in range(20):
        assert not matches(pattern, "a" * 4096)
    assert time.process_time() - began < 1


# --- conditions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("operator", "wanted", "value", "expected"),
    [
        ("StringEquals", "a", "a", True),
        ("StringEquals", ["b", "a"], "a", True),
        ("StringEquals", "A", "a", False),
        ("StringEquals", "*", "a", False),
        ("StringNotEquals", "a", "a", False),
        ("StringNotEquals", ["a", "b"], "b", False),
        ("StringNotEquals", ["a", "b"], "c", True),
        ("StringEqualsIgnoreCase", "A", "a", True),
        ("StringNotEqualsIgnoreCase", "A", "a", False),
        ("StringLike", "t?.*", "t3.micro", True),
        ("StringLike", ["m*", "c*"], "t3.micro", False),
        ("StringNotLike", "t?.*", "t3.micro", False),
        ("NumericEquals", 8, "8.0", True),
        ("NumericNotEquals", "8", "9", True),
        ("NumericLessThan", "10", "9", True),
        ("NumericLessThan", "10", "10", False),
        ("NumericLessThanEquals", "10", "10", True),
        ("NumericGreaterThan", "10", "9", False),
        ("NumericGreaterThanEquals", "10", "10", True),
        ("NumericLessThan", "10", "x", False),
        ("DateLessThan", "2030-01-01T00:00:00Z", "2029-12-31T23:59:59Z", True),
        ("DateLessThan", "2030-01-01", "2030-01-01T00:00:00+00:00", False),
        ("DateGreaterThanEquals", "1893456000", "2030-01-01T00:00:00Z", True),
        ("DateEquals", "2030-01-01T02:00:00+02:00", "2030-01-01T00:00:00Z", True),
        ("DateNotEquals", "2030-01-01", "2030-01-02", True),
        ("DateLessThanEquals", "2030-01-01", "2030-01-01", True),
        ("DateGreaterThan", "2030-01-01", "2030-01-01", False),
        ("Bool", "true", "true", True),
        ("Bool", True, "True", True),
        ("Bool", "false", "true", False),
        ("IpAddress", "192.0.2.0/24", "192.0.2.7", True),
        ("IpAddress", ["10.0.0.0/8", "192.0.2.7"], "192.0.2.7", True),
        ("IpAddress", "192.0.2.0/24", "198.51.100.1", False),
        ("IpAddress", "192.0.2.0/24", "2001:db8::1", False),
        ("IpAddress", "2001:db8::/32", "2001:db8::1", True),
        ("NotIpAddress", "192.0.2.0/24", "198.51.100.1", True),
        ("NotIpAddress", "192.0.2.0/24", "192.0.2.1", False),
        ("ArnEquals", "arn:aws:iam::*:role/web-*", "arn:aws:iam::1:role/web-1", True),
        ("ArnLike", "arn:aws:iam::1:role/*", "arn:aws:iam::2:role/x", False),
        ("ArnNotEquals", "arn:aws:iam::1:role/*", "arn:aws:iam::2:role/x", True),
        ("ArnNotLike", "arn:aws:iam::1:role/*", "arn:aws:iam::1:role/x", False),
        ("BinaryEquals", "QUJD", "QUJD", True),
        ("Null", "true", "a", False),
        ("Null", "false", "a", True),
    ],
)
def test_an_operator(operator: str, wanted: object, value: str, expected: bool) -> None:
    assert holds(operator, "aws:X", wanted, aws__x=value) is expected


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        ("StringEquals", False),
        ("StringNotEquals", True),
        ("StringEqualsIfExists", True),
        ("StringNotLikeIfExists", True),
        ("IpAddress", False),
        ("NotIpAddress", True),
        ("ForAllValues:StringEquals", True),
        ("ForAnyValue:StringEquals", False),
        ("ForAnyValue:StringNotEquals", False),
        ("ForAllValues:StringNotEquals", True),
        ("NumericLessThanIfExists", True),
        ("Bool", False),
        ("BoolIfExists", True),
    ],
)
def test_a_key_that_is_not_there(operator: str, expected: bool) -> None:
    wanted = {"IpAddress": "10.0.0.0/8", "NotIpAddress": "10.0.0.0/8", "NumericLessThanIfExists": "1"}
    wanted |= {"Bool": "true", "BoolIfExists": "true"}
    assert holds(operator, "aws:X", wanted.get(operator, "a")) is expected


def test_null_of_a_key_that_is_not_there() -> None:
    assert holds("Null", "aws:RequestTag/x", "true")
    assert not holds("Null", "aws:RequestTag/x", "false")


@pytest.mark.parametrize(
    ("operator", "values", "expected"),
    [
        ("ForAllValues:StringEquals", ["a", "b"], True),
        ("ForAllValues:StringEquals", ["a", "c"], False),
        ("ForAnyValue:StringEquals", ["a", "c"], True),
        ("ForAnyValue:StringEquals", ["c", "d"], False),
        ("ForAllValues:StringNotEquals", ["c", "d"], True),
        ("ForAllValues:StringNotEquals", ["a", "d"], False),
        ("ForAnyValue:StringNotEquals", ["a", "d"], True),
        ("ForAnyValue:StringNotEquals", ["a", "b"], False),
        ("ForAnyValue:StringLike", ["x"], False),
    ],
)
def test_a_key_with_several_values(operator: str, values: list[str], expected: bool) -> None:
    assert holds(operator, "aws:TagKeys", ["a", "b"], aws__tagkeys=values) is expected


def test_all_operators_and_all_keys_must_hold() -> None:
    condition = {"StringEquals": {"aws:A": "1", "aws:B": "2"}, "Bool": {"aws:C": "true"}}
    facts = {"aws:a": "1", "aws:b": "2", "aws:c": "true"}
    assert decide(statement(Condition=condition), **facts) is ALLOWED
    for missing in facts:
        assert decide(statement(Condition=condition), **{**facts, missing: "x"}) is SILENT


# --- variables --------------------------------------------------------------------------------------------------------


def test_a_variable_stands_for_who_calls() -> None:
    own = statement(Resource="arn:aws:iam::1:user/${aws:username}")
    assert decide(own, resource="arn:aws:iam::1:user/alice", **{"aws:username": "alice"}) is ALLOWED
    assert decide(own, resource="arn:aws:iam::1:user/bob", **{"aws:username": "alice"}) is SILENT
    assert decide(own, resource="arn:aws:iam::1:user/alice") is SILENT
    tagged = statement(Condition={"StringEquals": {"ec2:ResourceTag/Owner": "${aws:username}"}})
    assert decide(tagged, **{"aws:username": "alice", "ec2:resourcetag/owner": "alice"}) is ALLOWED
    assert decide(tagged, **{"aws:username": "bob", "ec2:resourcetag/owner": "alice"}) is SILENT


def test_what_a_caller_is_called_is_no_pattern() -> None:
    own = statement(Resource="arn:aws:iam::1:user/${aws:username}")
    assert decide(own, resource="arn:aws:iam::1:user/bob", **{"aws:username": "*"}) is SILENT
    assert decide(own, resource="arn:aws:iam::1:user/*", **{"aws:username": "*"}) is ALLOWED
    liked = statement(Condition={"StringLike": {"aws:X": "${aws:username}"}})
    assert decide(liked, **{"aws:username": "*", "aws:x": "bob"}) is SILENT


def test_defaults_and_letters_that_stand_for_themselves() -> None:
    assert fill("a/${aws:x, 'none'}", {}) == "a/none"
    assert fill("a/${aws:x, 'none'}", {"aws:x": ("b",)}) == "a/b"
    assert fill("a/${aws:x}", {}) is None
    assert matches(fill("a${*}${?}${$}", {}) or "", "a*?$")
    assert not matches(fill("a${*}", {}) or "", "ab")


def test_an_exception_that_cannot_be_filled_in_allows_nothing() -> None:
    but_own = statement(Resource=None, NotResource="arn:aws:iam::1:user/${aws:username}")
    assert decide(but_own, resource="arn:aws:iam::1:user/bob") is SILENT
    others = {"StringNotEquals": {"aws:X": "${aws:username}"}}
    assert decide(statement(Condition=others), **{"aws:x": "bob"}) is SILENT
    assert decide(statement(), statement("Deny", Condition=others), **{"aws:x": "bob"}) is DENIED


def test_the_older_language_has_no_variables() -> None:
    found = evaluate(
        [parse(text(statement(Resource="arn:aws:iam::1:user/${aws:username}"), version="2008-10-17"))],
        Request("iam:GetUser", "arn:aws:iam::1:user/alice", {"aws:username": ("alice",)}),
    )
    assert found.decision is SILENT


# --- trust ------------------------------------------------------------------------------------------------------------

ALICE, ROOT = "arn:aws:iam::111122223333:user/alice", "arn:aws:iam::111122223333:root"


@pytest.mark.parametrize(
    ("principal", "arns", "service", "expected"),
    [
        ("*", [ALICE], "", ALLOWED),
        ({"AWS": "*"}, [ALICE], "", ALLOWED),
        ({"AWS": ROOT}, [ALICE], "", SILENT),
        ({"AWS": [ALICE]}, [ALICE], "", ALLOWED),
        ({"AWS": ALICE}, ["arn:aws:iam::111122223333:user/bob"], "", SILENT),
        ({"Service": "ec2.amazonaws.com"}, [], "ec2.amazonaws.com", ALLOWED),
        ({"Service": ["x.amazonaws.com"]}, [], "ec2.amazonaws.com", SILENT),
        ({"Service": "ec2.amazonaws.com"}, [ALICE, ROOT], "", SILENT),
        ("*", [], "ec2.amazonaws.com", SILENT),
    ],
)
def test_whom_a_role_trusts(principal: object, arns: list[str], service: str, expected: Decision) -> None:
    trust = parse_trust(text({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}))
    assert evaluate_trust(trust, Request("sts:AssumeRole"), arns=arns, service=service).decision is expected


def test_an_account_is_trusted_as_a_whole_and_not_by_name() -> None:
    trust = parse_trust(text({"Effect": "Allow", "Principal": {"AWS": "111122223333"}, "Action": "sts:AssumeRole"}))
    request = Request("sts:AssumeRole")
    assert evaluate_trust(trust, request, arns=[ALICE], account=ROOT).decision is ALLOWED
    assert evaluate_trust(trust, request, arns=[ALICE], account=ROOT, by_name=True).decision is SILENT


def test_a_deny_for_all_but_one() -> None:
    trust = parse_trust(
        text(
            {"Effect": "Allow", "Principal": "*", "Action": "sts:*"},
            {"Effect": "Deny", "NotPrincipal": {"AWS": ALICE}, "Action": "sts:*"},
        )
    )
    assert evaluate_trust(trust, Request("sts:AssumeRole"), arns=[ALICE]).decision is ALLOWED
    assert evaluate_trust(trust, Request("sts:AssumeRole"), arns=[ALICE + "2"]).decision is DENIED


def test_not_principal_decides_against_who_is_listed_by_account() -> None:
    listed = {"NotPrincipal": {"AWS": [ALICE, ROOT]}, "Action": "sts:*"}
    everybody = {"Effect": "Allow", "Principal": "*", "Action": "sts:*"}
    for statements, alice, bob in (
        ([everybody, {**listed, "Effect": "Deny"}], ALLOWED, DENIED),
        ([{**listed, "Effect": "Allow"}], SILENT, SILENT),
    ):
        trust = parse_trust(text(*statements))
        for arns, expected in (([ALICE], alice), ([ALICE.replace("alice", "bob")], bob)):
            for by_name in (True, False):
                verdict = evaluate_trust(trust, Request("sts:X"), arns=arns, account=ROOT, by_name=by_name)
                assert verdict.decision is expected


# --- what cannot be read ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("", "Syntax"),
        ("[]", "object"),
        ("{", "Syntax"),
        ('{"Statement": NaN}', "JSON"),
        ("[" * 20000, "Syntax"),
        (" " * 30000, "characters"),
        ('{"Version": "2012-10-17"}', "Statement"),
        ('{"Version": "2012-10-17", "Statement": []}', "Statement"),
        ('{"Version": "2012-10-17", "Version": "2012-10-17", "Statement": []}', "twice"),
        ('{"Version": "2020-01-01", "Statement": []}', "2012-10-17"),
        ('{"Statement": [1]}', "object"),
        ('{"Statement": [], "X": 1}', "X"),
        (text(statement("Perhaps")), "Allow or Deny"),
        (text(statement(Action=None)), "Action"),
        (text(statement(NotAction="ec2:*")), "either"),
        (text(statement(Action="everything")), "SERVICE:ACTION"),
        (text(statement(Action=[])), "Action"),
        (text(statement(Action=7)), "Action"),
        (text(statement(Resource="instance/i-1")), "ARN"),
        (text(statement(Resource=None)), "Resource"),
        (text(statement(Principal="*")), "principal"),
        (text(statement(Sid="a;b")), "Sid"),
        (text(statement(Sid="a"), statement(Sid="a")), "unique"),
        (text(statement(Colour="red")), "Colour"),
        (text(statement(Condition={"StringIs": {"a": "b"}})), "StringIs"),
        (text(statement(Condition={"Some:StringEquals": {"a": "b"}})), "Some"),
        (text(statement(Condition={"NullIfExists": {"a": "true"}})), "NullIfExists"),
        (text(statement(Condition={"StringEquals": "a"})), "keys"),
        (text(statement(Condition={"StringEquals": {"a": {"b": 1}}})), "strings"),
        (text(statement(Condition={"IpAddress": {"a": "10.0.0.0/99"}})), "CIDR"),
        (text(statement(Condition={"NumericEquals": {"a": "x"}})), "number"),
        (text(statement(Condition={"DateLessThan": {"a": "soon"}})), "ISO"),
        (text(statement(Condition={"Bool": {"a": "yes"}})), "true or false"),
        ('{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "arn:\\u0000"}}', "control"),
        ('{"Statement": {"Effect": "Allow", "Action": "*", "Resource": "arn:\\ue000"}}', "private"),
    ],
)
def test_what_is_no_policy_says_why(document: str, said: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(said)):
        parse(document)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"Resource": "*", "Principal": "*"}, "Resource"),
        ({}, "Principal"),
        ({"Principal": {"AWS": "someone"}}, "someone"),
        ({"Principal": {"AWS": "arn:aws:iam::1:user/*"}}, "Invalid principal"),
        ({"Principal": {"Federated": "x"}}, "Federated"),
        ({"Principal": []}, "principal"),
    ],
)
def test_what_is_no_trust_policy(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(said)):
        parse_trust(text({"Effect": "Allow", "Action": "sts:AssumeRole", **changes}))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(["Effect", "Action", "NotAction", "Resource", "Condition", "Principal", "Sid"])


@given(st.dictionaries(NAMES, JSON | st.sampled_from(["Allow", "Deny", "*", "ec2:*"]), max_size=5))
def test_nonsense_is_refused_and_never_more(found: dict[str, Any]) -> None:
    for read in (parse, parse_trust):
        try:
            document = read(json.dumps({"Statement": found}))
        except PolicyError:
            continue
        evaluate([document], Request("ec2:X", INSTANCE))
