"""The errors that a caller of the API can see. EC2's model file has no error shapes, so the codes live here.

Source of codes: "Error codes for the Amazon EC2 API" in Amazon's EC2 API reference.
"""

from __future__ import annotations

from collections.abc import Iterable


class EC2Error(Exception):
    """An answer to the caller: one of EC2's codes, a sentence, and the HTTP status that goes with it."""

    def __init__(self, code: str, message: str, http_status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.http_status = http_status


class PartlyDone(EC2Error):
    """The answer to a call that did some of what was asked, and what it did stays: TerminateInstances over zones."""


def missing_parameter(name: str) -> EC2Error:
    return EC2Error("MissingParameter", f"The request must contain the parameter {name}")


def invalid_parameter(name: str, value: object, allowed: str) -> EC2Error:
    """A value that is not allowed; `allowed` says what would be ("an integer from 1 to 64")."""
    return EC2Error("InvalidParameterValue", f"Invalid value '{value}' for {name}. Expected {allowed}.")


def one_of(name: str, value: str, allowed: Iterable[str]) -> str:
    """`value`, when it is one of those."""
    if value not in (known := list(allowed)):
        raise invalid_parameter(name, value, f"one of {', '.join(known)}")
    return value


def not_found(code_prefix: str, noun: str, ids: list[str]) -> EC2Error:
    """`not_found("InvalidInstanceID", "instance", ["i-1"])` is EC2's InvalidInstanceID.NotFound."""
    plural = "s" if len(ids) > 1 else ""
    listed = ", ".join(ids)
    return EC2Error(
        f"{code_prefix}.NotFound", f"The {noun} ID{plural} '{listed}' {'do' if plural else 'does'} not exist"
    )


def unauthorized(message: str = "You are not authorized to perform this operation.") -> EC2Error:
    return EC2Error("UnauthorizedOperation", message, 403)


def dry_run() -> EC2Error:
    return EC2Error("DryRunOperation", "Request would have succeeded, but DryRun flag is set.", 412)


def dependency_violation(message: str) -> EC2Error:
    return EC2Error("DependencyViolation", message)


def unsupported(what: str) -> EC2Error:
    return EC2Error("UnsupportedOperation", what)
