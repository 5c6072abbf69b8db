"""The site file of `medseg serve`: what comes in, which model it is given to, and where results may go.

Every default is the careful one: nothing listens, nothing is sent, results are marked as research.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, StringConstraints, model_validator

from medseg.config.part import Part, Positive
from medseg.config.patterns import Pattern
from medseg.config.select import SelectRule, Short, ShortPattern
from medseg.config.site_network import Destination, PageConfig, ReceiveConfig, Source
from medseg.config.validation import validate_model
from medseg.config.yaml_text import parse_yaml, read_text
from medseg.errors import ConfigError
from medseg.lookup import nearest_hint
from medseg.output_formats import MASK_FORMATS, check_format

__all__ = ["MatchConfig", "RuleConfig", "SiteConfig", "WatchConfig", "load_site"]

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$")]
Hash = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16,64}$")]
# Part of a long string (LO): no backslash and no control characters.
Prefix = Annotated[str, StringConstraints(pattern=r"^[^\\\x00-\x1f\x7f]{0,32}$")]
_MOST_DAYS = 3650.0


class WatchConfig(Part):
    """A folder that studies are copied into.

    `folder`: searched with its sub-folders; DICOM files are taken, others are counted and left.
    `settle_s`: a file is taken once it has not changed for this many seconds.
    `remove`: delete a file once its copy is safely in the spool; without it, files stay and are remembered.
    """

    folder: Path
    settle_s: Annotated[float, Field(ge=0, le=3600)] = 5.0
    remove: bool = False


class MatchConfig(Part):
    """What a study must contain for a rule: a series that fits every key that is given.

    `modality`: as in DICOM (CT, MR, PT).
    `body_part`, `description`: regular expressions for BodyPartExamined and SeriesDescription, ignoring case.
    `min_slices`: series with fewer slices do not fit.
    `calling_ae`: regular expression for the whole AE title that sent the study, or of the archive that it was fetched
    from; '' for a watched folder and DICOMweb.
    """

    modality: Short | None = None
    body_part: ShortPattern | None = None
    description: ShortPattern | None = None
    min_slices: Annotated[int, Field(ge=1, le=10**6)] | None = None
    calling_ae: Annotated[Pattern, Field(max_length=200)] | None = None

    @property
    def series(self) -> SelectRule:
        """The part that a series is compared with."""
        return SelectRule(**self.model_dump(exclude={"calling_ae"}))


class RuleConfig(Part):
    """Which studies a model is given, and what becomes of its results; of several rules the first that fits is used.

    `name`: appears in the queue and in folder names; a rule keeps its name when others are added.
    `match`: what a study must contain; without it every study with an image fits.
    `model`: the bundle, a folder or zip.
    `model_hash`: of the bundle that is allowed, as `medseg serve SITE.yaml --check` prints it; another one is refused.
    `formats`: what is written, several if need be; see `medseg predict --format`.
    `send_to`: names of destinations; empty: results stay in the folder of the service.
    `anonymize`: remove the patient's identity from results (PS3.15 Basic Profile); a PACS cannot file them any more.
    """

    name: Name
    match: MatchConfig = MatchConfig()
    model: Path
    model_hash: Hash | None = None
    formats: Annotated[tuple[str, ...], Field(min_length=1)] = ("dicom-seg",)
    send_to: tuple[Name, ...] = ()
    anonymize: bool = False

    @model_validator(mode="after")
    def _known_formats(self) -> RuleConfig:
        for each in self.formats:
            check_format(each, MASK_FORMATS)
        if self.send_to and not all(MASK_FORMATS[each].needs_series for each in self.formats):
            raise ValueError(
                f"only DICOM objects can be sent, not {', '.join(self.formats)}; change formats or send_to"
            )
        return self


class SiteConfig(Part):
    """The site file of `medseg serve`.

    `folder`: of the service: spool, queue, results, audit; created for its user alone. It contains patient data.
    `watch`: a folder whose studies are taken.
    `receive`: a DICOM node that takes studies; without it nothing listens.
    `pull`: name and address of archives that studies are fetched from.
    `destinations`: name and address of what rules may send to.
    `quiet_s`: a study is complete when nothing has been added to it for this many seconds, or when everything is there
    that an archive of `pull` has of it; what comes later makes a new version of the study.
    `rules`: in order; a study that no rule fits is kept and reported, and nothing leaves.
    `devices`: one worker with one loaded model on each: auto, cpu, cuda, cuda:N.
    `reserve_gb`: nothing is accepted while less than this is free on the disk of the folder.
    `page`: a page to read what the service does; without it nothing listens.
    `prefix`: what the SeriesDescription of DICOM results begins with; '' for nothing.
    `keep_days`: studies and results older than this are deleted, not overwritten, once all is done and sent; without it
    all are kept.
    """

    format_version: Literal[1] = 1
    folder: Path
    watch: WatchConfig | None = None
    receive: ReceiveConfig | None = None
    pull: dict[Name, Source] = Field(default_factory=dict)
    destinations: dict[Name, Destination] = Field(default_factory=dict)
    quiet_s: Annotated[float, Field(ge=0, le=86400)] = 60.0
    rules: tuple[RuleConfig, ...] = ()
    devices: Annotated[tuple[Short, ...], Field(min_length=1, max_length=64)] = ("auto",)
    reserve_gb: Annotated[float, Field(ge=0)] = 5.0
    page: PageConfig | None = None
    prefix: Prefix = "RESEARCH"
    keep_days: Annotated[Positive, Field(le=_MOST_DAYS)] | None = None

    @model_validator(mode="after")
    def _consistent(self) -> SiteConfig:
        names = [rule.name for rule in self.rules]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two rules are called {twice!r}; give each its own name")
        for rule in self.rules:
            for name in rule.send_to:
                if name not in self.destinations:
                    hint = nearest_hint(name, self.destinations) or f"; known: {', '.join(self.destinations) or 'none'}"
                    raise ValueError(f"rule {rule.name!r} sends to {name!r}, which is not a destination{hint}")
        return self

    @property
    def takes_studies(self) -> bool:
        """Whether anything comes in."""
        return self.watch is not None or self.receive is not None or bool(self.pull)

    def rule(self, name: str) -> RuleConfig | None:
        """The rule of a name; None where the site file has it no longer."""
        return next((rule for rule in self.rules if rule.name == name), None)


def load_site(path: Path) -> SiteConfig:
    """The site file; relative paths in it are relative to its own folder.

    Raises:
        ConfigError: for a missing or unreadable file, an unknown key, a wrong type or an impossible value.
    """
    try:
        values = parse_yaml(read_text(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read ({reason}); give the YAML file of the site") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {str(error).replace(chr(10), ' ')}") from None
    site = validate_model(SiteConfig, values if values is not None else {}, str(path))
    placed: SiteConfig = _placed(site, path.absolute().parent)
    return placed


def _placed(value: Any, here: Path) -> Any:
    """The same values with every path absolute."""
    if isinstance(value, Path):
        return here / value
    if isinstance(value, BaseModel):
        changed = {name: _placed(getattr(value, name), here) for name in type(value).model_fields}
        return value.model_copy(update=changed)
    if isinstance(value, dict):
        return {name: _placed(each, here) for name, each in value.items()}
    if isinstance(value, tuple):
        return tuple(_placed(each, here) for each in value)
    return value
