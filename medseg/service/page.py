"""The status page, `/healthz` and `/metrics`: to read only; on this machine alone, or with a token."""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from medseg.config.site import SiteConfig
from medseg.config.site_network import PageConfig, is_loopback
from medseg.errors import ConfigError, MachineError, MedsegError, MissingPartError
from medseg.service.health import health_of
from medseg.service.metrics import metrics_text
from medseg.service.page_text import page_text
from medseg.service.places import Places
from medseg.service.tls import server_tls

__all__ = ["application", "read_token", "run_page"]

_SHORTEST_TOKEN = 16
_MOST_CONNECTIONS = 50
_HEADERS = {
    # Nothing from elsewhere, no scripts, no frames.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def application(site: SiteConfig, places: Places, page: PageConfig) -> Any:
    """The application as ASGI.

    Raises:
        ConfigError: if the token cannot be read or is too short.
        MissingPartError: if starlette is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.requests import Request
        from starlette.responses import PlainTextResponse, Response
        from starlette.routing import Route
    except ImportError:
        raise _missing("starlette") from None
    token = None if page.token_file is None else read_token(page.token_file)

    def answer(text: Callable[[], tuple[int, str, bytes]]) -> Callable[[Request], Response]:
        def respond(request: Request) -> Response:
            if token is not None and not _is_authorised(request.headers.get("authorization", ""), token):
                asked = {**_HEADERS, "WWW-Authenticate": 'Basic realm="medseg", charset="UTF-8"'}
                return PlainTextResponse("a token is needed\n", 401, asked)
            # Without a token, a page of somebody else's must not read this one through the reader's own browser.
            if token is None and not is_loopback(_host_name(request.headers.get("host", ""))):
                return PlainTextResponse("ask for 127.0.0.1 or localhost\n", 421, _HEADERS)
            try:
                status, kind, body = text()
            except MedsegError as error:
                return PlainTextResponse(f"{error}\n", 503, _HEADERS)
            return Response(body, status, _HEADERS, kind)

        return respond

    def healthz() -> tuple[int, str, bytes]:
        health = health_of(site, places)
        state = {"healthy": not health.faults, "faults": health.faults, "processes": health.roles}
        return 503 if health.faults else 200, "application/json", json.dumps(state).encode()

    return Starlette(
        routes=[
            Route("/", answer(lambda: (200, "text/html; charset=utf-8", page_text(site, places).encode()))),
            Route("/healthz", answer(healthz)),
            Route("/metrics", answer(lambda: (200, "text/plain; version=0.0.4", metrics_text(site, places)))),
        ]
    )


def run_page(site: SiteConfig, places: Places, page: PageConfig) -> None:
    """Serve the page until SIGTERM.

    Raises:
        ConfigError: if a certificate or the token cannot be used.
        MachineError: if the address cannot be listened on.
        MissingPartError: if starlette, uvicorn or prometheus_client is not installed.
    """
    try:
        import uvicorn
    except ImportError:
        raise _missing("uvicorn") from None
    tls = server_tls(page.tls, "page.tls")
    config = uvicorn.Config(
        application(site, places, page),
        host=page.host,
        port=page.port,
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=5,
        lifespan="off",
        ws="none",
    )
    config.load()
    config.ssl = tls
    try:
        socket = config.bind_socket()
    except SystemExit:  # what the library makes of an address in use
        raise MachineError(
            f"page cannot listen on {page.host}, port {page.port}; choose another port, or stop the program that has it"
        ) from None
    uvicorn.Server(config).run([socket])


def read_token(path: Path) -> str:
    """The token that readers of the page must give.

    Raises:
        ConfigError: if the file cannot be read, or contains less than 16 characters.
    """
    try:
        token = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the token of the page cannot be read ({error})") from None
    if len(token) < _SHORTEST_TOKEN:
        raise ConfigError(
            f"{path}: the token of the page has {len(token)} characters; use at least {_SHORTEST_TOKEN} random ones"
        )
    return token


def _is_authorised(header: str, token: str) -> bool:
    kind, _, given = header.partition(" ")
    given = given.strip()
    if kind.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode("utf-8").partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return False
    elif kind.lower() != "bearer":
        return False
    return hmac.compare_digest(given.encode(errors="backslashreplace"), token.encode())


def _host_name(host: str) -> str:
    """The host of a `Host` header, without port and brackets."""
    return host.partition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]


def _missing(name: str) -> MissingPartError:
    return MissingPartError(f"the page needs {name}: in the folder of medseg, pip install -c constraints.txt '.[pacs]'")
