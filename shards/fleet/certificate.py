"""The certificate that a fleet's edges show: checked, copied to the fleet's directory, watched, and trusted by its own.

A copy, so that what the edges show is what was last checked: a new certificate counts from the next `inv up`.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from shards.errors import ShardsError, UsageError
from shards.fleet.engines.edge import Tls
from shards.fleet.spec import FleetSpec
from shards.fleet.state import FleetDir, write_atomically

SOON_DAYS = 14
"""What is good for no longer is warned of. Tools renew a certificate when a third of its time is left, 30 days of the
usual 90, 15 of 45: so then a renewal has failed, or its hook has, and two weeks are left to mend that."""

RENEW = "inv up --tls-certificate FILE --tls-key FILE"
"""What has edges show the renewed one; it takes no socket away."""

_DAY_S, _HOUR_S = 86_400, 3600

_WHENEVER = ssl.VerifyFlags(0x200000)
"""OpenSSL's X509_V_FLAG_NO_CHECK_TIME, for which `ssl` has no name."""


def check(spec: FleetSpec) -> None:
    """See that servers can show the certificate that a spec names, and that clients may believe it today.

    Raises:
        UsageError: it can't be read, does not go with its key, or is out of date.
    """
    if not spec.tls_certificate:
        return
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    named = f"--tls-certificate {spec.tls_certificate} with --tls-key {spec.tls_key}"
    try:
        server.load_cert_chain(spec.tls_certificate, spec.tls_key, password=_no_password)
        _shake_hands(server, trusting(Path(spec.tls_certificate)))
    except ssl.SSLCertVerificationError as error:
        raise UsageError(f"{named}: {error.verify_message}") from None
    except ssl.SSLError as error:
        reason = (error.reason or str(error)).replace("_", " ").lower()
        raise UsageError(f"{named}: {reason}; both are PEM, and the key is that of the first certificate") from None
    except OSError as error:
        raise UsageError(f"{named}: {error.strerror}") from None


def keep(directory: FleetDir, spec: FleetSpec) -> None:
    """Copy the certificate that a spec names, and its key; without one, forget an earlier one's.

    Raises:
        ShardsError: it can't be copied.
    """
    try:
        for source, copy in _copies(directory, spec):
            if source:
                write_atomically(copy, Path(source).read_text())
            else:
                copy.unlink(missing_ok=True)
    except OSError as error:
        raise ShardsError(f"cannot copy {spec.tls_certificate} to {directory.path}: {error.strerror}") from None


def kept(directory: FleetDir, spec: FleetSpec) -> Tls | None:
    """Give what the edges of a fleet show; None: they speak plain HTTP.

    Raises:
        ShardsError: the copies can't be read.
    """
    if not spec.tls_certificate:
        return None
    try:
        certificate, key = directory.certificate_file.read_text(), directory.certificate_key_file.read_text()
    except OSError as error:
        raise ShardsError(f"cannot read the fleet's certificate in {directory.path}: {error.strerror}") from None
    return Tls(certificate, key, spec.port, spec.hsts_seconds)


def expires(directory: FleetDir, spec: FleetSpec) -> float | None:
    """Tell until when clients believe the certificate that the edges of a fleet show.

    Returns:
        Seconds since the epoch; None: the edges speak plain HTTP.

    Raises:
        ShardsError: the copies can't be read.
    """
    if not spec.tls_certificate:
        return None
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(directory.certificate_file, directory.certificate_key_file, _no_password)
        client = trusting(directory.certificate_file)
        client.verify_flags |= _WHENEVER
        # `ssl` takes a certificate apart only for who has been shown it.
        return ssl.cert_time_to_seconds(_shake_hands(server, client))
    except OSError as error:
        why = error.strerror or error
        raise ShardsError(f"cannot read the fleet's certificate in {directory.path}: {why}") from None


def soon(left_s: float) -> bool:
    """Tell whether it is time to warn of a certificate that is good for `left_s` seconds more."""
    return left_s <= SOON_DAYS * _DAY_S


def term(left_s: float) -> str:
    """Say how long a certificate is good for, in whole days, and below two of them in hours.

    Args:
        left_s: seconds; negative: it was.
    """
    unit, unit_s = ("days", _DAY_S) if abs(left_s) >= 2 * _DAY_S else ("hours", _HOUR_S)
    count = int(abs(left_s) // unit_s)
    unit = unit if count != 1 else "hour"
    return f"expires in {count:,} {unit}" if left_s > 0 else f"expired {count:,} {unit} ago"


def warning(left_s: float) -> str | None:
    """Say that a certificate expires soon, or has, and what to do; None: it is good for longer."""
    if not soon(left_s):
        return None
    come_of_it = "" if left_s > 0 else ", and clients refuse it"
    return f"the certificate that the edges show {term(left_s)}{come_of_it}: renew it, then `{RENEW}`"


def trusting(certificate: Path) -> ssl.SSLContext:
    """Make a client's context that trusts this certificate, for whatever name: the fleet's own requests go by address.

    Args:
        certificate: the file.

    Raises:
        OSError: it can't be read; also `ssl.SSLError`: it is none.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    # It need not be a root.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(certificate)
    return context


def _copies(directory: FleetDir, spec: FleetSpec) -> list[tuple[str, Path]]:
    return [(spec.tls_certificate, directory.certificate_file), (spec.tls_key, directory.certificate_key_file)]


def _no_password() -> str:
    raise UsageError("the key of --tls-key has a password, which nobody types where edges start: give one without")


def _shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> str:
    """Have two ends in memory agree.

    Returns:
        Until when the certificate that the client was shown is good, as `ssl` writes it.

    Raises:
        ssl.SSLError: they don't.
    """
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(down, up)
    ends = [asking, server.wrap_bio(up, down, server_side=True)]
    while ends:
        for end in tuple(ends):
            try:
                end.do_handshake()
                ends.remove(end)
            except ssl.SSLWantReadError:
                continue
    shown = asking.getpeercert() or {}
    return str(shown["notAfter"])
