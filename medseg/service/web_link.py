"""Links to DICOMweb services: token, authority and certificate of the site file and no others, and bounded answers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from medseg.config.site_network import WebDestination
from medseg.errors import ConfigError, MissingPartError
from medseg.service.dicom_link import ANSWER_SECONDS, CONNECT_SECONDS, RefusedError

__all__ = ["answered", "web_client"]

Answer = TypeVar("Answer")
_LARGEST_ANSWER = 256 << 20


@contextlib.contextmanager
def web_client(peer: WebDestination, largest: int = _LARGEST_ANSWER) -> Iterator[Any]:
    """A `DICOMwebClient` for a service.

    Args:
        peer: the service.
        largest: bytes of an answer; a larger one is refused before it is in memory.

    Raises:
        ConfigError: if the token cannot be read.
        MissingPartError: if dicomweb-client is not installed.
    """
    try:
        from dicomweb_client import DICOMwebClient
        from requests import Session
        from requests.adapters import HTTPAdapter
        from requests.exceptions import ContentDecodingError
    except ImportError:
        raise MissingPartError(
            "DICOMweb needs dicomweb-client: in the folder of medseg, pip install -c constraints.txt '.[pacs]'"
        ) from None

    class Patient(HTTPAdapter):
        """Waits for an answer, but not forever."""

        def send(self, *arguments: Any, **options: Any) -> Any:
            options["timeout"] = (CONNECT_SECONDS, ANSWER_SECONDS)
            return super().send(*arguments, **options)

    def bounded(response: Any, *_: object, **__: object) -> Any:
        """Called before the library reads the body."""
        parts, length = [], 0
        for part in response.iter_content(1 << 20):
            length += len(part)
            if length > largest:
                response.close()
                raise ContentDecodingError(f"an answer above {largest / 1e6:.0f} MB")
            parts.append(part)
        response._content = b"".join(parts)
        # The library does not read an answer, nor the failures in it, whose type has a parameter such as the charset.
        kind = response.headers.get("Content-Type", "")
        if not kind.lower().startswith("multipart/"):
            response.headers["Content-Type"] = kind.partition(";")[0].strip()
        return response

    session = Session()
    session.trust_env = False  # no proxy, password or authority but those of the site file
    for scheme in ("http://", "https://"):
        session.mount(scheme, Patient())
    if peer.token_file is not None:
        try:
            token = peer.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{peer.token_file}: the token cannot be read ({error})") from None
        session.headers["Authorization"] = f"Bearer {token}"
    if peer.tls is not None:
        if peer.tls.ca is not None:
            session.verify = str(peer.tls.ca)
        if peer.tls.certificate is not None:
            key = peer.tls.key or peer.tls.certificate
            session.cert = (str(peer.tls.certificate), str(key))
    session.hooks["response"] = [bounded]
    with session:
        # Requests of a known length, which every service takes; they are in memory as a whole anyway.
        client = DICOMwebClient(peer.url, session=session, chunk_size=1 << 40)
        client.set_http_retry_params(retry=False)  # retries are those of the queue
        yield client


def answered(peer: WebDestination, call: Callable[[], Answer]) -> Answer:
    """What a call of the client returns.

    Raises:
        RefusedError: if the service does not answer, or with an error or something that is not DICOM.
    """
    from requests.exceptions import RequestException

    try:
        return call()
    except RequestException as error:
        answer = getattr(error, "response", None)
        what = f"answered with status {answer.status_code}" if answer is not None else "does not answer"
        raise RefusedError(f"{peer.url} {what} ({type(error).__name__})") from None
    except OSError as error:  # such as a file of a certificate that is missing
        raise RefusedError(f"{peer.url}: {error}") from None
    # What the client and pydicom raise for an answer that is not what the standard says has no common class.
    except Exception as error:
        raise RefusedError(f"{peer.url} answered with something that is not DICOM ({type(error).__name__})") from None
