"""Signature Version 4 against botocore as the oracle, and against everything that an attacker may change."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from unittest.mock import patch
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from botocore.auth import SigV4Auth, SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import assume, given
from hypothesis import strategies as st

from orchestrator.api import signature as sig

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ACCESS, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
KEYS: dict[str, Any] = {"access_key": ACCESS, "secret_key": SECRET, "region": "us-east-1", "service": "ec2"}
FORM = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
BODY = b"Action=DescribeInstances&Version=2016-11-15&InstanceId.1=i-0123456789abcdef0"

hosts = st.sampled_from(["127.0.0.1:8773", "ec2.us-east-1.amazonaws.com", "Any.Name:80", "[::1]:8773", "h:443"])
segments = st.text("abzAZ09-_.~%!$&'()*+,;=:@ é", max_size=6).map(lambda text: quote(text, safe="%!$&'()*+,;=:@~"))
paths = st.lists(segments, max_size=5).map(lambda parts: "/" + "/".join(parts))
words = st.text("abzAZ09-_.~ +&=/%é☃", max_size=8)
encoded = words.map(lambda text: quote(text, safe="-_.~"))
queries = st.lists(st.tuples(encoded, st.one_of(st.just(None), encoded)), max_size=5).map(
    lambda pairs: "&".join(name if value is None else f"{name}={value}" for name, value in pairs)
)
header_names = st.sampled_from(["Content-Type", "X-Amz-Target", "x-custom", "Accept", "User-Agent", "Connection", "TE"])
header_values = st.text("abz AZ09;=/\t-é", max_size=20)
headers_given = st.dictionaries(header_names, header_values, max_size=4)
tokens = st.one_of(st.none(), st.text("abcXYZ09/+=", min_size=1, max_size=40))


@contextmanager
def botocore_clock() -> Iterator[None]:
    with patch("botocore.auth.get_current_datetime", return_value=NOW):
        yield


def on_the_wire(url: str, headers: dict[str, str]) -> dict[str, str]:
    """What the server gets: the client adds a Host when nobody did."""
    if any(name.lower() == "host" for name in headers):
        return headers
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2].lower()
    default = {"http": ":80", "https": ":443"}[parts.scheme]
    return {**headers, "Host": host.removesuffix(default)}


def verify_as_sent(method: str, url: str, headers: Any, body: bytes, **overrides: Any) -> sig.Credential:
    parts = urlsplit(url)
    credential = sig.read_credential(parts.query, headers)
    assert credential is not None
    arguments: dict[str, Any] = {"now": NOW, **overrides}
    secret = arguments.pop("secret_key", SECRET)
    sig.verify(credential, secret, method, parts.path, parts.query, headers, body, **arguments)
    return credential


def signed_request(**overrides: Any) -> tuple[str, str, dict[str, str], bytes]:
    url = "http://127.0.0.1:8773/"
    arguments = {**KEYS, "now": NOW, **overrides}
    headers = {**FORM, **sig.sign("POST", url, FORM, BODY, **arguments)}
    return "POST", url, on_the_wire(url, headers), BODY


# ---------------------------------------------------------------------------------------------------------- oracle


@given(st.sampled_from(["GET", "POST", "put"]), hosts, paths, queries, headers_given, st.binary(max_size=40), tokens)
def test_header_form_is_botocores(
    method: str, host: str, path: str, query: str, headers: dict[str, str], body: bytes, token: str | None
) -> None:
    url = f"http://{host}{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method=method, url=url, headers=dict(headers), data=body)
    with botocore_clock():
        SigV4Auth(Credentials(ACCESS, SECRET, token), "ec2", "us-east-1").add_auth(request)
    ours = sig.sign(method, url, headers, body, **KEYS, session_token=token, now=NOW)
    assert ours["Authorization"] == request.headers["Authorization"]
    assert ours["X-Amz-Date"] == request.headers["X-Amz-Date"]

    sent = on_the_wire(url, dict(request.headers.items()))
    credential = verify_as_sent(method, url, sent, body)
    assert (credential.access_key, credential.scope) == (ACCESS, "20260102/us-east-1/ec2/aws4_request")
    assert credential.session_token == token
    assert (credential.presigned, credential.expires_s, credential.timestamp) == (False, None, NOW)


@given(
    hosts,
    paths,
    st.dictionaries(words.filter(lambda word: not word.startswith("X-Amz-")), words, max_size=5),
    st.integers(1, sig.MAX_EXPIRES_S),
    tokens,
)
def test_presigned_form_is_botocores(
    host: str, path: str, params: dict[str, str], expires_s: int, token: str | None
) -> None:
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in params.items())
    url = f"https://{host}{path}" + (f"?{query}" if query else "")
    request = AWSRequest(method="GET", url=url)
    with botocore_clock():
        SigV4QueryAuth(Credentials(ACCESS, SECRET, token), "ec2", "us-east-1", expires_s).add_auth(request)
    ours = sig.presign("GET", url, **KEYS, session_token=token, expires_s=expires_s, now=NOW)
    assert ours == request.url

    credential = verify_as_sent("GET", request.url, on_the_wire(url, {}), b"", now=NOW + timedelta(seconds=expires_s))
    assert (credential.presigned, credential.expires_s, credential.session_token) == (True, expires_s, token)


def test_botocores_date_header_instead_of_x_amz_date() -> None:
    url = "http://localhost:8773/"
    request = AWSRequest("POST", url, {**FORM, "Date": "x"}, BODY)
    with botocore_clock():
        SigV4Auth(Credentials(ACCESS, SECRET), "ec2", "us-east-1").add_auth(request)
    assert "X-Amz-Date" not in request.headers
    assert verify_as_sent("POST", url, on_the_wire(url, dict(request.headers.items())), BODY).timestamp == NOW


def test_a_query_that_was_not_encoded_canonically() -> None:
    """A client that signs `a b` as a%20b may send it as a+b; botocore signs what it sends. Both mean the same."""
    signed_as, sent_as = "http://h/?name=a%20b", "http://h/?name=a+b"
    headers = on_the_wire(sent_as, sig.sign("GET", signed_as, {}, b"", **KEYS, now=NOW))
    verify_as_sent("GET", sent_as, headers, b"")
    verify_as_sent("GET", sent_as, on_the_wire(sent_as, sig.sign("GET", sent_as, {}, b"", **KEYS, now=NOW)), b"")
    with pytest.raises(sig.SignatureError):
        verify_as_sent("GET", "http://h/?name=a%2Bb", headers, b"")


def test_repeated_headers_and_white_space() -> None:
    """RFC 9110: repeated fields are one, joined by commas. The clause folds runs of white space, and trims."""
    url = "http://h/"
    added = sig.sign("GET", url, {"X-Amz-Meta": "a b,c"}, b"", **KEYS, now=NOW)
    pairs = [("X-AMZ-meta", "  a \t  b "), ("x-amz-meta", "c"), ("HOST", "h"), *added.items()]
    verify_as_sent("GET", url, pairs, b"")
    with pytest.raises(sig.SignatureError):
        verify_as_sent("GET", url, [pairs[1], pairs[0], *pairs[2:]], b"")


# ------------------------------------------------------------------------------------------- whatever is changed, fails


def flip(text: str, bit: int) -> str:
    raw = bytearray(text.encode("latin-1"))
    raw[bit // 8] ^= 1 << bit % 8
    return raw.decode("latin-1")


def meaning(query: str) -> list[tuple[str, str]]:
    return sorted(parse_qsl(query, keep_blank_values=True, encoding="latin-1"))


def must_fail(method: str, path: str, query: str, headers: dict[str, str], body: bytes) -> None:
    try:
        credential = sig.read_credential(query, headers)
    except sig.SignatureError:
        return
    if credential is None:
        return  # not signed at all any more
    secret = SECRET if credential.access_key == ACCESS else "of somebody else"
    with pytest.raises(sig.SignatureError):
        sig.verify(credential, secret, method, path, query, headers, body, now=NOW)


def test_every_bit_of_the_body() -> None:
    method, url, headers, body = signed_request()
    verify_as_sent(method, url, headers, body)
    for bit in range(len(body) * 8):
        changed = bytearray(body)
        changed[bit // 8] ^= 1 << bit % 8
        must_fail(method, "/", "", headers, bytes(changed))
    must_fail(method, "/", "", headers, b"")
    must_fail("GET", "/", "", headers, body)
    must_fail(method, "/", "a=b", headers, body)


def test_every_bit_of_every_signed_header() -> None:
    method, url, headers, body = signed_request(session_token="tok+en/=")
    verify_as_sent(method, url, headers, body)
    for name, value in headers.items():
        for bit in range(len(value) * 8):
            changed = flip(value, bit)
            if changed.split() == value.split():
                continue  # another white space is the same header
            must_fail(method, "/", "", {**headers, name: changed}, body)
        must_fail(method, "/", "", {other: text for other, text in headers.items() if other != name}, body)


def test_every_bit_of_path_and_query() -> None:
    path, query = "/a.b/c%20d/e/", "Action=DescribeTags&Filter.1.Name=tag%3AName&Empty=&Filter.1.Value.1=a%20b"
    url = f"http://h{path}?{query}"
    headers = on_the_wire(url, sig.sign("GET", url, {}, b"", **KEYS, now=NOW))
    verify_as_sent("GET", url, headers, b"")
    for bit in range(len(path) * 8):
        must_fail("GET", flip(path, bit), query, headers, b"")
    for bit in range(len(query) * 8):
        changed = flip(query, bit)
        if meaning(changed) != meaning(query):
            must_fail("GET", path, changed, headers, b"")


def test_every_bit_of_a_presigned_url() -> None:
    url = sig.presign("GET", "http://h/p?Action=DescribeVpcs", **KEYS, session_token="tok", now=NOW)
    parts = urlsplit(url)
    headers = {"Host": "h"}
    verify_as_sent("GET", url, headers, b"")
    for bit in range(len(parts.query) * 8):
        changed = flip(parts.query, bit)
        if meaning(changed) != meaning(parts.query):
            must_fail("GET", parts.path, changed, headers, b"")
    must_fail("GET", parts.path, parts.query, {"Host": "g"}, b"")
    must_fail("GET", parts.path, parts.query, headers, b"x")
    must_fail("POST", parts.path, parts.query, headers, b"")
    must_fail("GET", parts.path, parts.query + "&Action=DeleteVpc", headers, b"")


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_bytes_that_are_not_utf8_do_not_collapse(one: bytes, other: bytes) -> None:
    assume(one != other)
    url = f"http://h/?x={quote(one, safe='-_.~')}"
    headers = on_the_wire(url, sig.sign("GET", url, {}, b"", **KEYS, now=NOW))
    must_fail("GET", "/", f"x={quote(other, safe='-_.~')}", headers, b"")


def test_another_secret() -> None:
    method, url, headers, body = signed_request()
    with pytest.raises(sig.SignatureError) as caught:
        verify_as_sent(method, url, headers, body, secret_key=SECRET + "x")
    assert (caught.value.code, caught.value.http_status) == ("SignatureDoesNotMatch", 403)


# ------------------------------------------------------------------------------------------------------------- rules


@pytest.mark.parametrize(("off_s", "good"), [(0, True), (300, True), (-300, True), (301, False), (-301, False)])
def test_skew(off_s: int, good: bool) -> None:
    method, url, headers, body = signed_request()
    now = NOW + timedelta(seconds=off_s)
    if good:
        verify_as_sent(method, url, headers, body, now=now)
        return
    with pytest.raises(sig.SignatureError) as caught:
        verify_as_sent(method, url, headers, body, now=now)
    assert caught.value.code == "RequestExpired"


@pytest.mark.parametrize(("off_s", "good"), [(60, True), (61, False), (-300, True), (-301, False)])
def test_presigned_expiry(off_s: int, good: bool) -> None:
    url = sig.presign("GET", "http://h/", **KEYS, expires_s=60, now=NOW)
    now = NOW + timedelta(seconds=off_s)
    if good:
        verify_as_sent("GET", url, {"host": "h"}, b"", now=now)
        return
    with pytest.raises(sig.SignatureError) as caught:
        verify_as_sent("GET", url, {"host": "h"}, b"", now=now)
    assert caught.value.code == "RequestExpired"


@pytest.mark.parametrize("expires", ["0", "604801", "-1", "9" * 30, "6e1", "", "٣"])
def test_presigned_expiry_out_of_range(expires: str) -> None:
    query = urlsplit(sig.presign("GET", "http://h/", **KEYS, now=NOW)).query
    query = query.replace("Expires=3600", f"Expires={expires}")
    with pytest.raises(sig.SignatureError) as caught:
        sig.read_credential(query, {"host": "h"})
    assert caught.value.code == "AuthFailure"
    assert "604800" in caught.value.message
    with pytest.raises(ValueError, match="604800"):
        sig.presign("GET", "http://h/", **KEYS, expires_s=0)


def test_scope_of_another_day() -> None:
    method, url, headers, body = signed_request()
    headers["Authorization"] = headers["Authorization"].replace("20260102", "20260101")
    with pytest.raises(sig.SignatureError, match="credential scope"):
        verify_as_sent(method, url, headers, body)


def test_what_must_be_signed() -> None:
    method, url, headers, body = signed_request()
    with pytest.raises(sig.SignatureError, match="'x-amz-target'"):
        verify_as_sent(method, url, {**headers, "X-Amz-Target": "Smuggled.Action"}, body)
    hostless = headers["Authorization"].replace("content-type;host;", "content-type;")
    with pytest.raises(sig.SignatureError, match="'host'"):
        verify_as_sent(method, url, {**headers, "Authorization": hostless}, body)
    verify_as_sent(method, url, {**headers, "X-Amzn-Trace-Id": "Root=1", "User-Agent": "any"}, body)


def test_declared_body_hash() -> None:
    url = "http://h/"
    for declared in ("UNSIGNED-PAYLOAD", "0" * 64, "STREAMING-UNSIGNED-PAYLOAD-TRAILER", ""):
        given_headers = {"X-Amz-Content-SHA256": declared}
        sent = on_the_wire(url, {**given_headers, **sig.sign("POST", url, given_headers, BODY, **KEYS, now=NOW)})
        with pytest.raises(sig.SignatureError, match="x-amz-content-sha256"):
            verify_as_sent("POST", url, sent, BODY)
        if declared == "UNSIGNED-PAYLOAD":
            verify_as_sent("POST", url, sent, b"any other", allow_unsigned_payload=True)
        else:
            with pytest.raises(sig.SignatureError):
                verify_as_sent("POST", url, sent, BODY, allow_unsigned_payload=True)


def test_not_signed_is_none() -> None:
    assert sig.read_credential("Action=DescribeVpcs&X-Amz-Other=1", {"host": "h"}) is None


GOOD = (
    "AWS4-HMAC-SHA256 Credential=AK/20260102/us-east-1/ec2/aws4_request, "
    "SignedHeaders=host;x-amz-date, Signature=" + "a" * 64
)


def test_well_formed_variants() -> None:
    headers = {"X-Amz-Date": "20260102T030405Z"}
    plain = sig.read_credential("", {**headers, "Authorization": GOOD})
    assert plain is not None
    assert plain.signed_headers == ("host", "x-amz-date")
    assert sig.read_credential("", {**headers, "authorization": GOOD.replace(", ", ",")}) == plain
    slashed = sig.read_credential("", {**headers, "Authorization": GOOD.replace("=AK/", "=A/K/")})
    assert slashed is not None
    assert slashed.access_key == "A/K"


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer abc",
        "AWS AK:abc=",
        GOOD.replace("SHA256 ", "SHA1 "),
        GOOD.replace("Credential=", "credential="),
        GOOD.replace("=AK/", "=/"),
        GOOD.replace("=AK/", "=A K/"),
        GOOD.replace("aws4_request", "aws4"),
        GOOD.replace("/ec2/", "/"),
        GOOD.replace("/ec2/", "//"),
        GOOD.replace("20260102", "2026-1-2"),
        GOOD.replace("us-east-1", "us east"),
        GOOD.replace("us-east-1", "u" * 65),
        GOOD.replace("host;x-amz-date", "x-amz-date;host"),
        GOOD.replace("host;x-amz-date", "host;host"),
        GOOD.replace("host;x-amz-date", "Host;x-amz-date"),
        GOOD.replace("host;x-amz-date", ""),
        GOOD.replace("a" * 64, "A" * 64),
        GOOD.replace("a" * 64, "a" * 63),
        GOOD + ", Signature=" + "b" * 64,
        GOOD + ", More=1",
        GOOD + ",",
        GOOD.rpartition(",")[0],
    ],
)
def test_malformed_authorization(authorization: str) -> None:
    with pytest.raises(sig.SignatureError) as caught:
        sig.read_credential("", {"Authorization": authorization, "X-Amz-Date": "20260102T030405Z"})
    assert (caught.value.code, caught.value.http_status) == ("IncompleteSignature", 400)


DATES = ["20260102T030405", "20261302T030405Z", "2026-01-02T03:04:05Z", "", "00000102T000000Z"]


@pytest.mark.parametrize("date", DATES)
def test_malformed_date(date: str) -> None:
    with pytest.raises(sig.SignatureError, match="IncompleteSignature"):
        sig.read_credential("", {"Authorization": GOOD, "X-Amz-Date": date})
    with pytest.raises(sig.SignatureError, match="IncompleteSignature"):
        sig.read_credential("", {"Authorization": GOOD, "Date": "the other day"})
    with pytest.raises(sig.SignatureError, match="IncompleteSignature"):
        sig.read_credential("", {"Authorization": GOOD})


def test_repeated_claims() -> None:
    stamp = ("X-Amz-Date", "20260102T030405Z")
    for twice in (("Authorization", GOOD), stamp, ("X-Amz-Security-Token", "t")):
        with pytest.raises(sig.SignatureError, match="IncompleteSignature"):
            sig.read_credential("", [("Authorization", GOOD), stamp, twice, twice])
    query = urlsplit(sig.presign("GET", "http://h/", **KEYS, now=NOW)).query
    for bad in (query + "&X-Amz-Date=1", query.replace("X-Amz-Algorithm=AWS4", "X-Amz-Algorithm=AWS5"), query[:-75]):
        with pytest.raises(sig.SignatureError, match="IncompleteSignature"):
            sig.read_credential(bad, {"host": "h"})
    with pytest.raises(sig.SignatureError, match="not in both"):
        sig.read_credential(query, {"Authorization": GOOD, "host": "h"})


@given(st.text(max_size=200), st.text(max_size=200), st.text(max_size=30))
def test_garbage_never_crashes(query: str, authorization: str, date: str) -> None:
    for headers in ({}, {"Authorization": authorization, "X-Amz-Date": date}, {"Authorization": GOOD, "Date": date}):
        for text in (query, "X-Amz-Signature=" + query):
            try:
                sig.read_credential(text, headers)
            except sig.SignatureError:
                continue


def test_starts_in_milliseconds() -> None:
    """The command line imports it at every start: the standard library only, and little of that."""
    program = (
        "import sys; before = set(sys.modules); import orchestrator.api.signature;"
        "print(*(set(m.partition('.')[0] for m in set(sys.modules) - before) - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["orchestrator"]
