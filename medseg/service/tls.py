"""TLS of what listens, from the site file."""

from __future__ import annotations

import socket
import ssl

from medseg.config.site_network import ServerTlsConfig
from medseg.errors import ConfigError

__all__ = ["server_tls"]


class _LaterHandshake(ssl.SSLContext):
    """Leaves the handshake to the thread of the connection: a peer that is silent must not hold up the next one."""

    def wrap_socket(self, sock: socket.socket, server_side: bool = False, **_: object) -> ssl.SSLSocket:  # type: ignore[override]
        return super().wrap_socket(sock, server_side=server_side, do_handshake_on_connect=False)


def server_tls(config: ServerTlsConfig | None, where: str) -> ssl.SSLContext | None:
    """TLS 1.2 or later; with `ca`, peers without a certificate of that authority are refused.

    Args:
        config: None for no TLS.
        where: its key in the site file, for messages.

    Raises:
        ConfigError: if a certificate cannot be used.
    """
    if config is None:
        return None
    context = _LaterHandshake(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(config.certificate, config.key)
        if config.ca is not None:
            context.load_verify_locations(config.ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{where}: {config.certificate} and its key or ca cannot be used ({error})") from None
    return context
