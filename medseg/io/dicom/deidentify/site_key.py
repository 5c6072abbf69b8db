"""The secret key of this user, and keyed hashes of identifiers.

A plain hash does not hide a short number: all accession numbers of a clinic can be tried in a second.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from pathlib import Path

from medseg.disk.atomic import write_error
from medseg.errors import ConfigError, WriteError

__all__ = ["keyed_hash", "site_key"]

# For this process only; used if no permanent key is available.
_PASSING_KEY = secrets.token_bytes(32)
_LONG_UID = re.compile(r"(?=[\d.]{24})\d+(\.\d+){4,}")


def site_key(path: Path | None = None) -> bytes:
    """The permanent secret of this user, read from a file that is created at the first call.

    Args:
        path: the key file; `~/.config/medseg/deidentify.key` by default (XDG_CONFIG_HOME is respected). Copy the file
            to get the same replacements on another machine; whoever has it can link copies to originals.

    Raises:
        ConfigError: if the file has fewer than 16 bytes, or cannot be read.
        WriteError: if it cannot be created.
    """
    place = path or _home() / "medseg" / "deidentify.key"
    try:
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            _make(place)
    except OSError as error:
        raise write_error(place, error) from error
    try:
        key = place.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"{place} cannot be read: {error.strerror or error}") from None
    if len(key) < 16:
        raise ConfigError(
            f"{place} has {len(key)} bytes; expected a secret of at least 16: remove the file to get a new key"
        )
    return key


def keyed_hash(*parts: str, length: int = 8) -> str:
    """A short hash that identifies `parts` together (a patient, a study) and cannot be reversed without the key.

    The same parts give the same hash wherever the same site key is installed. If no key can be created or read (a
    read-only home), the hash is derived from the long UIDs among the parts, which cannot be guessed; without UIDs it
    differs from run to run.

    Args:
        parts: identifiers in order; ('1', '23') and ('12', '3') give different hashes.
        length: number of hexadecimal digits, at most 64 (HMAC-SHA256, RFC 2104).

    Example:
        >>> len(keyed_hash("patient 7", "1.2.840.7")), keyed_hash("1", "23") == keyed_hash("12", "3")
        (8, False)
    """
    try:
        key = site_key()
    except (ConfigError, WriteError):
        uids = tuple(part for part in parts if _LONG_UID.fullmatch(part))
        key, parts = (b"no key", uids) if uids else (_PASSING_KEY, parts)
    return hmac.new(key, b"name\0" + json.dumps(parts).encode(), hashlib.sha256).hexdigest()[:length]


def _home() -> Path:
    try:
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    except RuntimeError:  # a user without a home, as in a container
        raise ConfigError("the home folder is unknown; set XDG_CONFIG_HOME to a folder for medseg's key") from None


def _make(place: Path) -> None:
    # If two runs start together, the second uses the first one's key, and neither sees half a key.
    descriptor = os.open(temporary := place.with_name(f".{secrets.token_hex(8)}"), os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode())
        try:
            os.link(temporary, place)
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)
