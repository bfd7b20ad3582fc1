"""The certificate of the gateway's own ports. It is read again on a reload: new connections get the new one.

Not here: which certificates the gateway trusts when it calls others.
"""

from __future__ import annotations

import ssl

from segue.config import ConfigError, ServerConfig


class ServerTls:
    """The TLS settings of a gateway that has a certificate: TLS 1.2 and later."""

    def __init__(self, server: ServerConfig) -> None:
        self.context = _context(server)

    def replace(self, server: ServerConfig) -> None:
        """Take the certificate that the files have now.

        Raises:
            ConfigError: they have none that can be used; nothing has changed.
        """
        _context(server)  # what is loaded into the context in use must not fail halfway
        _load(self.context, server)


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
    return context


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
