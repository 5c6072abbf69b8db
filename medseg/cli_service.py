"""The commands `serve` and `queue`: studies are segmented unattended, and a person sees what happened."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from medseg.cli_options import AsJson, Debug

__all__ = ["QUEUE_EXAMPLES", "SERVE_EXAMPLES", "queue", "serve"]

SERVE_EXAMPLES = """\
medseg serve site.yaml --check
medseg serve site.yaml --check study/
medseg serve site.yaml"""

QUEUE_EXAMPLES = """\
medseg queue site.yaml list
medseg queue site.yaml show 12 --patient
medseg queue site.yaml retry 12"""

Site = Annotated[
    Path,
    typer.Argument(metavar="SITE", readable=False, help="The YAML file of the site; see the guide on the service."),
]


def serve(
    site: Site,
    study: Annotated[
        Path | None,
        typer.Argument(metavar="STUDY", readable=False, help="With --check: a DICOM study, to see which rule it gets."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Try disk, input, rules and models, and report; start and write nothing.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Segment studies as they come in, by the rules of a site file, until it is stopped.

    Nothing is sent anywhere unless the site file says so. Research use only.
    """
    from medseg.errors import ConfigError

    if check:
        from medseg.service.check import check_site

        check_site(site, study, typer.echo)
        return
    if study is not None:
        raise ConfigError(f"{study}: a study is given only with --check")
    from medseg.service.serve import serve as run_service

    run_service(site)


def queue(
    site: Site,
    action: Annotated[
        Literal["list", "show", "retry", "cancel"],
        typer.Argument(
            metavar="ACTION",
            help="list: all jobs; show: one job; retry: try a failed or dead one again; cancel: give up one that has "
            "not begun.",
        ),
    ] = "list",
    job: Annotated[int | None, typer.Argument(metavar="JOB", help="Number of the job, as list shows it.")] = None,
    patient: Annotated[
        bool, typer.Option("--patient", help="With show: also name, number and date of the patient's study.")
    ] = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """List the jobs of a service, show one, try one again or give one up."""
    from medseg.config.site import load_site
    from medseg.errors import ConfigError
    from medseg.service.report import changed_text, job_text, list_text, site_queue

    places, jobs = site_queue(load_site(site).folder)
    if action == "list":
        typer.echo(list_text(jobs, as_json))
        return
    if job is None:
        raise ConfigError(f"medseg queue {site} {action} needs the number of a job, as list shows it")
    if action == "show":
        typer.echo(job_text(jobs, places, job, patient, as_json))
    else:
        typer.echo(changed_text(jobs, places, job, action))
