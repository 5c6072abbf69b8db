"""`medseg serve SITE.yaml --check [STUDY]`: tries folder, disk, rules and models without starting anything."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

from medseg.config.site import RuleConfig, SiteConfig, load_site
from medseg.config.site_network import (
    DicomDestination,
    DicomSource,
    PageConfig,
    WebDestination,
    WebSource,
    is_loopback,
)
from medseg.errors import ConfigError, MedsegError
from medseg.service.rules import match_study
from medseg.service.serve import NOTHING_COMES_IN
from medseg.service.tls import server_tls

__all__ = ["check_site"]


def check_site(path: Path, study: Path | None, echo: Callable[[str], object]) -> None:
    """Try what the service needs and report each part in a line; nothing is written or sent.

    Args:
        path: the site file.
        study: a folder with a DICOM study, to see which rule it would get.
        echo: takes the lines.

    Raises:
        ConfigError: if the site file cannot be used, or a part failed; the lines say which.
    """
    site = load_site(path)
    failed = 0
    for what, trial in _trials(site, study):
        try:
            echo(f"ok       {what}: {trial()}")
        except MedsegError as error:
            failed += 1
            echo(f"failed   {what}: {error}")
    if failed:
        raise ConfigError(f"{path}: {failed} of the parts above failed; the service would not do its work")


def _trials(site: SiteConfig, study: Path | None) -> list[tuple[str, Callable[[], str]]]:
    trials: list[tuple[str, Callable[[], str]]] = [("disk", lambda: _disk(site)), ("input", lambda: _input(site))]
    trials += [(f"rule {rule.name}", partial(_model, site, rule)) for rule in site.rules]
    trials += [(f"pull {name}", partial(_source, source)) for name, source in site.pull.items()]
    if site.page is not None:
        trials.append(("page", partial(_page, site.page)))
    used = {name for rule in site.rules for name in rule.send_to}
    trials += [
        (f"destination {name}", partial(_destination, address))
        for name, address in site.destinations.items()
        if name in used
    ]
    if study is not None:
        trials.append((f"study {study}", lambda: _study(site, study)))
    return trials


def _disk(site: SiteConfig) -> str:
    place = next(each for each in (site.folder, *site.folder.parents) if each.exists())
    free = shutil.disk_usage(place).free / 1e9
    if free < site.reserve_gb:
        raise ConfigError(
            f"{site.folder} has {free:.1f} GB free, and reserve_gb is {site.reserve_gb:g}; free some space"
        )
    return f"{site.folder} has {free:.1f} GB free, {site.reserve_gb:g} of them are reserved"


def _input(site: SiteConfig) -> str:
    if not site.takes_studies:
        raise ConfigError(NOTHING_COMES_IN)
    sources = []
    if site.watch is not None:
        if not site.watch.folder.is_dir():
            raise ConfigError(f"watch.folder is {site.watch.folder}, which is not a folder; create it")
        sources.append(f"from {site.watch.folder}")
    if site.receive is not None:
        node = site.receive
        server_tls(node.tls, "receive.tls")
        sources.append(f"as {node.ae_title} on {node.host}, port {node.port}, from {', '.join(node.calling)}")
    sources += [f"from {name} every {source.every_minutes:g} minutes" for name, source in site.pull.items()]
    return f"studies are taken {' and '.join(sources)}; complete after {site.quiet_s:g} s without a new object"


def _model(site: SiteConfig, rule: RuleConfig) -> str:
    from medseg.inference.load import load_model
    from medseg.service.worker import check_model

    model = load_model(rule.model, site.devices[0])
    check_model(rule, model)
    where = f"results are sent to {', '.join(rule.send_to)}" if rule.send_to else "results stay here, nothing is sent"
    return f"{rule.model} finds {', '.join(model.scheme.names)}, as {', '.join(rule.formats)}; {where}"


def _destination(address: DicomDestination | WebDestination) -> str:
    from medseg.service.deliver import reach

    return f"{reach(address)} answers"


def _source(source: DicomSource | WebSource) -> str:
    from medseg.service.deliver import reach

    wanted = f" of {', '.join(source.modalities)}" if source.modalities else ""
    return f"{reach(source)} answers; studies{wanted} of the last {source.days} days are fetched"


def _page(page: PageConfig) -> str:
    from medseg.service.page import read_token

    if page.token_file is not None:
        read_token(page.token_file)
    server_tls(page.tls, "page.tls")
    open_to = "readers with the token" if page.token_file is not None else "this machine"
    clear = (
        ""
        if page.tls is not None or is_loopback(page.host)
        else "; without tls the token crosses the network in the clear"
    )
    return f"{page.host}, port {page.port}, for {open_to}{clear}"


def _study(site: SiteConfig, study: Path) -> str:
    if not study.is_dir():
        raise ConfigError(f"{study} is not a folder; give one with the DICOM files of a study")
    found = match_study(study, "", site.rules)
    if not found.rule:
        return f"no rule fits ({'; '.join(found.reasons)}); it would be kept and reported"
    return f"rule {found.rule} ({found.reasons[-1]})"
