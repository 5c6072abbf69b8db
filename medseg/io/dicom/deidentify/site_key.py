"""The secret of this user, and hashes of identifiers under it.

A plain hash hides no short number: whoever tries all accession numbers of a clinic finds each again in a second.
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

# For this process only; used where no lasting key can be had.
_PASSING_KEY = secrets.token_bytes(32)
_LONG_UID = re.compile(r"(?=[\d.]{24})\d+(\.\d+){4,}")


def site_key(path: Path | None = None) -> bytes:
    """The lasting secret of this user: read from a file, which is made at the first call.

    Args:
        path: where it lies; `~/.config/medseg/deidentify.key` by default (XDG_CONFIG_HOME is respected). Copy the file
            to let two machines give the same replacements; whoever has it can link copies to originals.

    Raises:
        ConfigError: the file holds less than 16 bytes, or cannot be read.
        WriteError: no permission to make it.
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
            f"{place} holds {len(key)} bytes; expected a secret of at least 16: remove it to get a new one"
        )
    return key


def keyed_hash(*parts: str, length: int = 8) -> str:
    """A short name for what `parts` identify together (a patient, a study), which cannot be reversed without the key.

    The same parts give the same name wherever the same site key lies. Where the key cannot be made or read (a home that
    is read-only), the name follows from the long UIDs among the parts, which nobody can guess, and differs from run to
    run where there are none.

    Args:
        parts: identifiers in order; ('1', '23') and ('12', '3') give different names.
        length: hexadecimal digits to give, at most 64 (HMAC-SHA256, RFC 2104).

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
        raise ConfigError("the home folder is not known; set XDG_CONFIG_HOME to a folder for medseg's key") from None


def _make(place: Path) -> None:
    # Of two runs that start together the second takes the key of the first, and neither sees half a key.
    descriptor = os.open(temporary := place.with_name(f".{secrets.token_hex(8)}"), os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(32).encode())
        try:
            os.link(temporary, place)
        except FileExistsError:
            pass
        except OSError:  # a disk without hard links
            temporary.replace(place)
    finally:
        temporary.unlink(missing_ok=True)
