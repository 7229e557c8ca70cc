"""How a ``wss://`` server's certificate is checked."""

from __future__ import annotations

import ssl
from pathlib import Path

import msgspec

from shards.errors import UsageError


class Tls(msgspec.Struct, frozen=True):
    """What to check a certificate against; travels to the generator processes, so it holds no paths.

    Attributes:
        insecure: check nothing.
        ca: certificates to trust instead of the system's, in PEM; None: the system's.
    """

    insecure: bool = False
    ca: str | None = None

    @classmethod
    def chosen(cls, insecure: bool, ca: Path | None) -> Tls:
        """Read what the command line names.

        Raises:
            UsageError: that is no file of certificates, or both were asked for.
        """
        if insecure and ca:
            raise UsageError("--insecure checks no certificate, --ca says what to check it against: give one of them")
        try:
            tls = cls(insecure, ca.read_text() if ca else None)
            if tls.ca == "":
                raise ValueError("it is empty")
            tls.context()
        except (OSError, ValueError, ssl.SSLError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else error
            raise UsageError(f"--ca {ca} is no file of certificates in PEM: {why}") from error
        return tls

    def context(self) -> ssl.SSLContext:
        """Give the context to connect with.

        Raises:
            ssl.SSLError, ValueError: `ca` holds no certificates.
        """
        context = ssl.create_default_context(cadata=self.ca)
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
