"""AWS Signature Version 4, both ends: a client signs with it, the gateway verifies with it.

    request ──► canonical request ──► string to sign ──► HMAC chain ──► signature
                method, path,         time, scope,       secret, date,
                query, headers,       SHA-256 of it      region, service
                body hash

It owns canonicalisation so that both ends cannot drift apart, and imports nothing but the standard library because
the command line loads it on every start. The rules are those of "AWS Signature Version 4 for API requests" in
Amazon's IAM guide, for services other than S3: the path is normalised and percent-encoded once more than on the wire.

A verified signature covers the *meaning* of a request, not its bytes: `/a/../b` and `/b`, and `x=1&y=2` and `y=2&x=1`,
are the same request. Whoever reads the query must therefore refuse a parameter that is given twice.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, quote_from_bytes, unquote_plus, unquote_to_bytes, urlsplit, urlunsplit

ALGORITHM = "AWS4-HMAC-SHA256"
TERMINATOR = "aws4_request"
UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
MAX_EXPIRES_S = 7 * 24 * 3600

# A proxy may add or change these, so a client leaves them out of what it signs.
_NEVER_SIGNED = frozenset(
    {"authorization", "baggage", "connection", "expect", "keep-alive", "proxy-authenticate", "proxy-authorization"}
    | {"te", "traceparent", "tracestate", "trailer", "transfer-encoding", "upgrade", "user-agent", "x-amzn-trace-id"}
)
_PRESIGNED_NAMES = tuple(
    f"X-Amz-{word}" for word in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature")
)
_DEFAULT_PORTS = {"http": 80, "https": 443}

_TIMESTAMP = re.compile(r"(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z", re.ASCII)
_ACCESS_KEY = re.compile(r"[!-+\--~]{1,128}", re.ASCII)
_SCOPE_WORD = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)
_HEX_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)

Headers = Mapping[str, str] | Iterable[tuple[str, str]]
"""A mapping (a multi-dict too, whose items() repeats a name) or pairs; names in any case."""


class SignatureError(Exception):
    """Why a request is not who it says it is; `code` is EC2's, `http_status` goes with it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.http_status = 400 if code == "IncompleteSignature" else 403


@dataclass(frozen=True, slots=True)
class Credential:
    """What a request claims: the key, the scope it was signed for, and the signature. Nothing in it is proven yet."""

    access_key: str
    date: str
    """YYYYMMDD of the scope."""
    region: str
    service: str
    signed_headers: tuple[str, ...]
    signature: str
    timestamp: datetime
    expires_s: int | None
    """Only in a presigned request."""
    session_token: str | None
    presigned: bool

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/{self.service}/{TERMINATOR}"


# ---------------------------------------------------------------------------------------------------------- signing


def sign(
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    access_key: str,
    secret_key: str,
    session_token: str | None = None,
    region: str,
    service: str,
    now: datetime | None = None,
) -> dict[str, str]:
    """The headers to add to a request so that it is signed. `url` is as it will be sent, percent-encoded."""
    moment = now or datetime.now(UTC)
    added = {"X-Amz-Date": _stamp(moment)}
    if session_token is not None:
        added["X-Amz-Security-Token"] = session_token
    replaced = {name.lower() for name in added}
    grouped = _to_sign(url, [*((n, v) for n, v in headers.items() if n.lower() not in replaced), *added.items()])
    claim = _claim(access_key, region, service, tuple(sorted(grouped)), moment, session_token, expires_s=None)
    parts = urlsplit(url)
    payload = _first(grouped, "x-amz-content-sha256") or hashlib.sha256(body).hexdigest()
    canonical = _canonical_request(method, parts.path, _sorted_query(_raw_pairs(parts.query)), grouped, claim, payload)
    signed = ";".join(claim.signed_headers)
    added["Authorization"] = (
        f"{ALGORITHM} Credential={access_key}/{claim.scope}, SignedHeaders={signed}, "
        f"Signature={_signature(secret_key, claim, canonical)}"
    )
    return added


def presign(
    method: str,
    url: str,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    *,
    access_key: str,
    secret_key: str,
    session_token: str | None = None,
    region: str,
    service: str,
    expires_s: int = 3600,
    now: datetime | None = None,
) -> str:
    """The URL with a signature in its query, good for `expires_s` (1 to 604800). `headers` must be sent with it."""
    if not 1 <= expires_s <= MAX_EXPIRES_S:
        raise ValueError(f"expires_s is {expires_s}; allowed are 1 to {MAX_EXPIRES_S}")
    moment = now or datetime.now(UTC)
    grouped = _to_sign(url, (headers or {}).items())
    claim = _claim(access_key, region, service, tuple(sorted(grouped)), moment, session_token, expires_s=expires_s)
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    pairs += [
        ("X-Amz-Algorithm", ALGORITHM),
        ("X-Amz-Credential", f"{access_key}/{claim.scope}"),
        ("X-Amz-Date", _stamp(moment)),
        ("X-Amz-Expires", str(expires_s)),
        ("X-Amz-SignedHeaders", ";".join(claim.signed_headers)),
    ]
    if session_token is not None:
        pairs.append(("X-Amz-Security-Token", session_token))
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
    payload = _first(grouped, "x-amz-content-sha256") or hashlib.sha256(body).hexdigest()
    canonical = _canonical_request(method, parts.path, _sorted_query(_raw_pairs(query)), grouped, claim, payload)
    query += f"&X-Amz-Signature={_signature(secret_key, claim, canonical)}"
    return urlunsplit((parts.scheme, parts.netloc, parts.path, query, parts.fragment))


# -------------------------------------------------------------------------------------------------------- verifying


def read_credential(query: str, headers: Headers) -> Credential | None:
    """What the Authorization header or the presigned `query` (raw, without the `?`) claims; None when neither is there.

    Raises SignatureError: `IncompleteSignature` for a claim that is not well formed, `AuthFailure` for an expiry out of
    range.
    """
    grouped = _group(headers)
    authorization = grouped.get("authorization")
    presigned = [
        (_decode(name), _decode(value)) for name, value in _raw_pairs(query) if _decode(name).startswith("X-Amz-")
    ]
    if not any(name in _PRESIGNED_NAMES for name, _ in presigned):
        return _read_header(authorization, grouped) if authorization is not None else None
    if authorization is not None:
        raise _incomplete("A request is signed either in its Authorization header or in its query, not in both")
    return _read_presigned(presigned)


def verify(
    credential: Credential,
    secret_key: str,
    method: str,
    raw_path: str,
    raw_query: str,
    headers: Headers,
    body: bytes,
    *,
    now: datetime,
    skew_s: int = 300,
    allow_unsigned_payload: bool = False,
) -> None:
    """Return when `secret_key` signed this very request; raise SignatureError otherwise.

    `raw_path` and `raw_query` are as they came over the wire. `RequestExpired` when the request is older or newer than
    `skew_s`, or a presigned one is past its expiry; `SignatureDoesNotMatch` for everything else.
    Whether the session token belongs to the access key is for the caller to check.
    """
    _check_time(credential, now, timedelta(seconds=skew_s))
    grouped = _group(headers)
    for name in credential.signed_headers:
        if name not in grouped:
            raise _mismatch(f"The signed header '{name}' is not in the request")
    if "host" not in credential.signed_headers:
        raise _mismatch("The 'host' header must be signed")
    for name in grouped:
        if name.startswith("x-amz-") and name not in credential.signed_headers:
            raise _mismatch(f"The header '{name}' is in the request and must be signed")
    payload = _checked_payload(grouped.get("x-amz-content-sha256"), body, allow_unsigned_payload)

    pairs = _raw_pairs(raw_query)
    if credential.presigned:
        pairs = [(name, value) for name, value in pairs if _decode(name) != "X-Amz-Signature"]
    # botocore signs the query as it stands; other clients sign it decoded and encoded anew. They differ only for a
    # query that was not encoded canonically, and mean the same, since the decoding is the one a form is read with.
    as_sent = _sorted_query(pairs)
    encoded_anew = _sorted_query([(_encode_anew(name), _encode_anew(value)) for name, value in pairs])
    for query in dict.fromkeys((as_sent, encoded_anew)):
        canonical = _canonical_request(method, raw_path, query, grouped, credential, payload)
        if hmac.compare_digest(_signature(secret_key, credential, canonical), credential.signature):
            return
    raise _mismatch(
        "The request signature we calculated does not match the signature you provided. "
        "Check your secret access key and signing method"
    )


def _read_header(values: list[str], grouped: Mapping[str, list[str]]) -> Credential:
    if len(values) != 1:
        raise _incomplete("The Authorization header is given more than once")
    algorithm, _, rest = values[0].strip(" \t").partition(" ")
    if algorithm != ALGORITHM:
        raise _incomplete(f"Authorization scheme '{algorithm[:40]}' is not supported. Expected {ALGORITHM}")
    claim: dict[str, str] = {}
    for part in rest.split(","):
        name, equals, value = part.strip(" \t").partition("=")
        if not equals or name not in ("Credential", "SignedHeaders", "Signature") or name in claim:
            raise _incomplete("The Authorization header must be Credential=…, SignedHeaders=…, Signature=…, each once")
        claim[name] = value
    for name in ("Credential", "SignedHeaders", "Signature"):
        if name not in claim:
            raise _incomplete(f"Authorization header requires '{name}' parameter")
    dates = grouped.get("x-amz-date") or grouped.get("date")
    if dates is None or len(dates) != 1:
        raise _incomplete("Authorization header requires exactly one of the headers 'X-Amz-Date' and 'Date'")
    tokens = grouped.get("x-amz-security-token", [])
    if len(tokens) > 1:
        raise _incomplete("The header 'X-Amz-Security-Token' is given more than once")
    timestamp = _read_stamp(dates[0].strip(" \t"), http_date_too="x-amz-date" not in grouped)
    return _build(claim, timestamp, None, tokens[0].strip(" \t") if tokens else None, presigned=False)


def _read_presigned(pairs: list[tuple[str, str]]) -> Credential:
    claim = dict(pairs)
    if len(claim) != len(pairs):
        raise _incomplete("A presigned query gives each X-Amz- parameter once")
    for name in _PRESIGNED_NAMES:
        if name not in claim:
            raise _incomplete(f"A presigned query requires '{name}'")
    if claim["X-Amz-Algorithm"] != ALGORITHM:
        raise _incomplete(f"X-Amz-Algorithm '{claim['X-Amz-Algorithm'][:40]}' is not supported. Expected {ALGORITHM}")
    expires = claim["X-Amz-Expires"]
    if not (expires.isascii() and expires.isdigit() and len(expires) <= 6 and 1 <= int(expires) <= MAX_EXPIRES_S):
        raise SignatureError("AuthFailure", f"X-Amz-Expires '{expires[:20]}' must be from 1 to {MAX_EXPIRES_S} seconds")
    words = {name: claim[f"X-Amz-{name}"] for name in ("Credential", "SignedHeaders", "Signature")}
    timestamp = _read_stamp(claim["X-Amz-Date"], http_date_too=False)
    return _build(words, timestamp, int(expires), claim.get("X-Amz-Security-Token"), presigned=True)


def _build(
    claim: Mapping[str, str], timestamp: datetime, expires_s: int | None, session_token: str | None, *, presigned: bool
) -> Credential:
    scope = claim["Credential"].rsplit("/", 4)
    if len(scope) != 5 or scope[4] != TERMINATOR or not _ACCESS_KEY.fullmatch(scope[0]):
        raise _incomplete(f"Credential must be ACCESS_KEY/YYYYMMDD/REGION/SERVICE/{TERMINATOR}")
    access_key, date, region, service, _ = scope
    if not (len(date) == 8 and date.isascii() and date.isdigit()):
        raise _incomplete(f"The date '{date[:20]}' in Credential must be YYYYMMDD")
    for name, word in (("region", region), ("service", service)):
        if not _SCOPE_WORD.fullmatch(word):
            raise _incomplete(f"The {name} '{word[:64]}' in Credential must be 1 to 64 letters, digits and hyphens")
    signed_headers = tuple(claim["SignedHeaders"].split(";"))
    if not all(_HEADER_NAME.fullmatch(name) for name in signed_headers):
        raise _incomplete("SignedHeaders must be lower-case header names separated by ';'")
    if list(signed_headers) != sorted(set(signed_headers)):
        raise _incomplete("SignedHeaders must be sorted, each name once")
    if not _HEX_SHA256.fullmatch(claim["Signature"]):
        raise _incomplete("Signature must be 64 lower-case hexadecimal digits")
    return Credential(
        access_key=access_key,
        date=date,
        region=region,
        service=service,
        signed_headers=signed_headers,
        signature=claim["Signature"],
        timestamp=timestamp,
        expires_s=expires_s,
        session_token=session_token,
        presigned=presigned,
    )


def _check_time(credential: Credential, now: datetime, skew: timedelta) -> None:
    stamp = _stamp(credential.timestamp)
    if credential.date != stamp[:8]:
        raise _mismatch(f"The date '{credential.date}' in the credential scope is not that of the request, '{stamp}'")
    if credential.timestamp > now + skew:
        raise SignatureError("RequestExpired", f"The request of {stamp} is from the future; it is {_stamp(now)} here")
    life = skew if credential.expires_s is None else timedelta(seconds=credential.expires_s)
    if now > credential.timestamp + life:
        raise SignatureError("RequestExpired", f"Request has expired: it is of {stamp}; it is {_stamp(now)} here")


def _checked_payload(declared: list[str] | None, body: bytes, allow_unsigned: bool) -> str:
    actual = hashlib.sha256(body).hexdigest()
    if declared is None:
        return actual
    value = declared[0].strip(" \t") if len(declared) == 1 else ""
    if value == UNSIGNED_PAYLOAD and allow_unsigned:
        return value
    if not hmac.compare_digest(value.encode("utf-8", "surrogateescape"), actual.encode()):
        raise _mismatch("The header 'x-amz-content-sha256' must be the SHA-256 of the body in lower-case hexadecimal")
    return actual


# -------------------------------------------------------------------------------------------------- canonical forms


def _canonical_request(
    method: str, raw_path: str, query: str, grouped: Mapping[str, list[str]], claim: Credential, payload: str
) -> bytes:
    headers = "".join(
        f"{name}:{','.join(' '.join(value.split()) for value in grouped[name])}\n" for name in claim.signed_headers
    )
    signed = ";".join(claim.signed_headers)
    text = f"{method.upper()}\n{_canonical_path(raw_path)}\n{query}\n{headers}\n{signed}\n{payload}"
    return text.encode("utf-8", "surrogateescape")


def _canonical_path(raw_path: str) -> str:
    """Dot segments and empty segments removed (RFC 3986, section 5.2.4), then percent-encoded once more."""
    if not raw_path:
        return "/"
    segments: list[str] = []
    for segment in raw_path.split("/"):
        if segment == "..":
            del segments[-1:]
        elif segment not in ("", "."):
            segments.append(segment)
    head = "/" if raw_path.startswith("/") else ""
    tail = "/" if raw_path.endswith("/") and segments else ""
    return quote_from_bytes((head + "/".join(segments) + tail).encode("utf-8", "surrogateescape"), safe="/~")


def _raw_pairs(query: str) -> list[tuple[str, str]]:
    if not query:
        return []
    return [(name, value) for name, _, value in (pair.partition("=") for pair in query.split("&"))]


def _sorted_query(pairs: list[tuple[str, str]]) -> str:
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _encode_anew(text: str) -> str:
    return quote_from_bytes(unquote_to_bytes(text.replace("+", " ").encode("utf-8", "surrogateescape")), safe="-_.~")


def _decode(text: str) -> str:
    return unquote_plus(text, errors="replace")


def _signature(secret_key: str, claim: Credential, canonical: bytes) -> str:
    digest = hashlib.sha256(canonical).hexdigest()
    text = f"{ALGORITHM}\n{_stamp(claim.timestamp)}\n{claim.scope}\n{digest}"
    key = f"AWS4{secret_key}".encode()
    for word in (claim.date, claim.region, claim.service, TERMINATOR):
        key = hmac.digest(key, word.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def _claim(
    access_key: str,
    region: str,
    service: str,
    signed_headers: tuple[str, ...],
    moment: datetime,
    session_token: str | None,
    *,
    expires_s: int | None,
) -> Credential:
    moment = moment.astimezone(UTC).replace(microsecond=0)
    return Credential(
        access_key=access_key,
        date=_stamp(moment)[:8],
        region=region,
        service=service,
        signed_headers=signed_headers,
        signature="",
        timestamp=moment,
        expires_s=expires_s,
        session_token=session_token,
        presigned=expires_s is not None,
    )


def _to_sign(url: str, headers: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    grouped = {name: values for name, values in _group(headers).items() if name not in _NEVER_SIGNED}
    if "host" not in grouped:
        grouped["host"] = [_host_of(url)]
    return grouped


def _host_of(url: str) -> str:
    """What an HTTP client sends as Host: lower case, and the port unless it is the scheme's own."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if ":" in host:
        host = f"[{host}]"
    return host if parts.port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f"{host}:{parts.port}"


def _group(headers: Headers) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, value in headers.items() if isinstance(headers, Mapping) else headers:
        grouped.setdefault(name.lower(), []).append(value)
    return grouped


def _first(grouped: Mapping[str, list[str]], name: str) -> str | None:
    values = grouped.get(name)
    return values[0] if values else None


def _stamp(moment: datetime) -> str:
    utc = moment.astimezone(UTC)
    return f"{utc.year:04}{utc.month:02}{utc.day:02}T{utc.hour:02}{utc.minute:02}{utc.second:02}Z"


def _read_stamp(text: str, *, http_date_too: bool) -> datetime:
    if found := _TIMESTAMP.fullmatch(text):
        try:
            return datetime(*map(int, found.groups()), tzinfo=UTC)  # type: ignore[misc, arg-type]
        except ValueError:
            pass
    elif http_date_too:
        from email.utils import parsedate_to_datetime  # only an old client sends it, and the command line never

        try:
            moment = parsedate_to_datetime(text)
            return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
        except (ValueError, OverflowError):
            pass
    raise _incomplete(f"The date '{text[:40]}' of the request must be YYYYMMDD'T'HHMMSS'Z'")


def _incomplete(message: str) -> SignatureError:
    return SignatureError("IncompleteSignature", message)


def _mismatch(message: str) -> SignatureError:
    return SignatureError("SignatureDoesNotMatch", message)
