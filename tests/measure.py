"""What tests measure: a line on standard output, and in the file that ORC_MEASURE names, a row for docs/faults.md."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime


def measured(fault: str, what: str, seconds: float) -> None:
    """How long it took from a fault, or its end, until all was well."""
    print(f"{fault}: {what}: {seconds:.1f} s")
    path = os.environ.get("ORC_MEASURE")
    if path:
        row = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "fault": fault, "what": what, "seconds": round(seconds, 2)}
        with open(path, "a") as file:
            print(json.dumps(row), file=file)
