"""The network in a site file: what listens and for whom, what is fetched, and where results may be sent."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import Discriminator, Field, StringConstraints, Tag, model_validator

from medseg.config.part import Part, Positive

__all__ = [
    "ClientTlsConfig",
    "Destination",
    "DicomDestination",
    "DicomSource",
    "PageConfig",
    "ReceiveConfig",
    "ServerTlsConfig",
    "Source",
    "WebDestination",
    "WebSource",
    "is_loopback",
]

AeTitle = Annotated[str, StringConstraints(pattern=r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$")]
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.:_-]{1,255}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Modality = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_]{1,16}$")]


class ServerTlsConfig(Part):
    """TLS of what listens.

    `certificate`, `key`: PEM files of this node.
    `ca`: PEM file with the authority that must have signed the sender's certificate; without it, senders need none.
    """

    certificate: Path
    key: Path
    ca: Path | None = None


class ClientTlsConfig(Part):
    """TLS towards a destination, whose certificate and host name are always checked.

    `ca`: PEM file with the authority that signed the destination's certificate; the system's without it.
    `certificate`, `key`: PEM files of this node, where the destination asks for them.
    """

    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None


class ReceiveConfig(Part):
    """A DICOM node that takes images by C-STORE and answers C-ECHO.

    `ae_title`: of this node; senders that call another one are refused.
    `calling`: AE titles that may send; all others are refused.
    `host`, `port`: the address that it listens on; this machine alone by default.
    `tls`: encrypted connections only.
    `most_associations`: at the same time; further ones are refused.
    `largest_object_gb`: a connection that sends a larger object is closed.
    """

    ae_title: AeTitle = "MEDSEG"
    calling: Annotated[tuple[AeTitle, ...], Field(min_length=1)]
    host: Host = "127.0.0.1"
    port: Port = 11112
    tls: ServerTlsConfig | None = None
    most_associations: Annotated[int, Field(ge=1, le=100)] = 10
    largest_object_gb: Positive = 2.0


class DicomDestination(Part):
    """A DICOM node that results are sent to by C-STORE.

    `host`, `port`, `ae_title`: of the destination.
    `calling`: AE title of this node.
    `tls`: encrypted; without it, patient data cross the network in the clear.
    """

    host: Host
    port: Port
    ae_title: AeTitle
    calling: AeTitle = "MEDSEG"
    tls: ClientTlsConfig | None = None


class WebDestination(Part):
    """A DICOMweb service that results are sent to by STOW-RS.

    `url`: such as https://pacs.example/dicom-web.
    `token_file`: file with a bearer token, readable for the user of the service alone.
    `tls`: authority and certificate, for https.
    """

    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s?#]+$", max_length=1000)]
    token_file: Path | None = None
    tls: ClientTlsConfig | None = None


class _Pulled(Part):
    """What is fetched from an archive, and how often."""

    every_minutes: Annotated[float, Field(ge=0.05, le=1440)] = 10.0
    days: Annotated[int, Field(ge=1, le=36500)] = 3
    modalities: Annotated[tuple[Modality, ...], Field(max_length=20)] = ()
    largest_object_gb: Positive = 2.0


class DicomSource(_Pulled, DicomDestination):
    """An archive that studies are fetched from by C-FIND and C-GET.

    `host`, `port`, `ae_title`, `calling`, `tls`: as of a destination.
    `every_minutes`: between two queries.
    `days`: studies of today and of so many days before are asked for.
    `modalities`: only studies and series of these; empty: all series but reports, segmentations, plans and the like.
    `largest_object_gb`: a connection that sends a larger object is closed.
    """


class WebSource(_Pulled, WebDestination):
    """An archive that studies are fetched from by QIDO-RS and WADO-RS.

    `url`, `token_file`, `tls`: as of a destination.
    `every_minutes`, `days`, `modalities`: as of an archive with C-FIND.
    `largest_object_gb`: a larger object is left out and reported.
    """


def _way(value: object) -> str:
    """By which protocol a node is meant, so that messages speak of that one."""
    return "web" if "url" in (value if isinstance(value, dict) else getattr(value, "model_fields_set", ())) else "dicom"


Destination = Annotated[
    Annotated[DicomDestination, Tag("dicom")] | Annotated[WebDestination, Tag("web")], Discriminator(_way)
]
Source = Annotated[Annotated[DicomSource, Tag("dicom")] | Annotated[WebSource, Tag("web")], Discriminator(_way)]


class PageConfig(Part):
    """A page to read what the service does, with `/healthz` and `/metrics`.

    `host`, `port`: the address that it listens on; this machine alone by default.
    `token_file`: file with the token that readers must give, as a bearer token or as the password of any user; required
    where other machines can reach the page.
    `tls`: https only.
    """

    host: Host = "127.0.0.1"
    port: Port = 8412
    token_file: Path | None = None
    tls: ServerTlsConfig | None = None

    @model_validator(mode="after")
    def _not_open(self) -> PageConfig:
        if self.token_file is None and not is_loopback(self.host):
            raise ValueError(f"the page listens on {self.host}, where others can reach it; give token_file")
        return self


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("0.0.0.0")
        (True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
