"""Where an imported file comes from: an upload, or a file below the one folder that the deployment has for it.

    upload://upload-0123456789abcdef0    what PUT /upload keeps, and answers the id of
    file:///srv/import/debian.vmdk       below `storage.import_dir`, and no link on the way

Buckets need an S3 that this deployment does not have.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from orchestrator.model import ids
from orchestrator.model.errors import EC2Error, unsupported

_ALLOWED = "upload://upload-... or file:///..."


@dataclass(frozen=True, slots=True)
class Source:
    """Exactly one of the two."""

    upload_id: str = ""
    parts: tuple[str, ...] = ()  # of a path below the import folder: plain names


def read_source(url: str, import_dir: str) -> Source:
    """What `url` means. Raises EC2Error."""
    try:
        split = urlsplit(url)
    except ValueError as error:
        raise EC2Error("InvalidParameterValue", f"Invalid value '{url[:200]}' for Url: {error}") from None
    if split.scheme in ("s3", "http", "https"):
        raise unsupported(f"An import reads no buckets or web pages here ({split.scheme}://). Url may be {_ALLOWED}")
    if split.scheme == "upload" and not split.path and not split.query:
        return Source(upload_id=ids.check("upload", split.netloc))
    if split.scheme == "file" and split.netloc in ("", "localhost") and not split.query and not split.fragment:
        return Source(parts=_below(unquote(split.path), import_dir))
    raise EC2Error("InvalidParameterValue", f"Invalid value '{url[:200]}' for Url. Expected {_ALLOWED}.")


def _below(path: str, import_dir: str) -> tuple[str, ...]:
    if not import_dir:
        raise unsupported("file:// can be imported once storage.import_dir names a folder in the configuration")
    try:
        parts = PurePosixPath(path).relative_to(import_dir).parts
    except ValueError:
        parts = ()
    if not parts or ".." in parts or any(not part.isprintable() for part in parts):
        raise EC2Error("InvalidParameterValue", f"The file '{path[:200]}' is not below {import_dir}, as it must be")
    return parts
