"""The certificate of the gateway's own ports, and the authorities of its clients' certificates.

Both are read again on a reload: new connections get the new ones. Not here: which certificates the gateway trusts when
it calls others, and whose a client's certificate is (`access`).
"""

from __future__ import annotations

import ssl

from segue.config import ConfigError, ServerConfig


class ServerTls:
    """The TLS settings of a gateway that has a certificate: TLS 1.2 and later. `context`: for the next connection."""

    def __init__(self, server: ServerConfig) -> None:
        self.context = _context(server)

    def replace(self, server: ServerConfig) -> None:
        """Take the certificates that the files have now.

        Raises:
            ConfigError: they have none that can be used; nothing has changed.
        """
        self.context = _context(server)  # another one: authorities cannot be taken out of a context again


def server_tls(server: ServerConfig) -> ServerTls | None:
    """Return the TLS settings; None if the gateway has no certificate.

    Raises:
        ConfigError: the files cannot be used.
    """
    return None if server.tls_cert is None else ServerTls(server)


def _context(server: ServerConfig) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, server)
    if server.tls_client_ca is not None:
        _ask_for_certificates(context, server.tls_client_ca, required=server.tls_client_auth == "required")
    return context


def _ask_for_certificates(context: ssl.SSLContext, authorities: str, *, required: bool) -> None:
    context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    try:
        context.load_verify_locations(authorities)
    except OSError as error:  # ssl.SSLError is one
        reason = "it holds no certificates" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"cannot read {authorities}: {reason}") from None


def _load(context: ssl.SSLContext, server: ServerConfig) -> None:
    certificate, key = server.tls_cert, server.tls_key
    assert certificate is not None, "checked with the configuration, as that the two belong together"
    assert key is not None
    for file in (certificate, key):
        try:
            with open(file, "rb"):  # noqa: PTH123 - the error of `load_cert_chain` does not say which file is missing
                pass
        except OSError as error:
            raise ConfigError(f"cannot read {file}: {error.strerror}") from None
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        reason = error.reason if isinstance(error, ssl.SSLError) else str(error)
        raise ConfigError(f"{certificate} and {key} are no certificate with its key: {reason}") from None


def _no_password() -> str:
    raise ValueError("the key has a password: write it without one, readable by the gateway's user alone")
