"""TLS as a client speaks it: whom it trusts, by what it is known, what the server showed."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from faultline.api.tls import TlsFields
from faultline.errors import ObserveFailed
from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.reach import reason


@dataclass(frozen=True, slots=True)
class Trust:
    """What a client asks of the server and says of itself."""

    verify: bool = True
    ca: str = ""
    certificate: str = ""
    key: str = ""
    password: str = ""
    server_name: str = ""

    def context(self, protocols: Sequence[str] = ()) -> ssl.SSLContext:
        """The settings for one connection; raises ObserveFailed for files that are no good."""
        try:
            context = ssl.create_default_context(cafile=self.ca or None)
            if self.certificate:
                # A password is always given: without one OpenSSL would ask at the terminal.
                context.load_cert_chain(self.certificate, self.key or None, lambda: self.password)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            named = ", ".join(filter(None, (self.ca, self.certificate, self.key)))
            raise ObserveFailed(f"the files for TLS cannot be used ({named}): {error}") from error
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if protocols:
            context.set_alpn_protocols(list(protocols))
        return context

    def encrypt(
        self, connection: socket.socket, context: ssl.SSLContext, host: str, limit: Limit
    ) -> ssl.SSLSocket:
        """Speak TLS from here on; raises NoAnswer. The connection is closed if that fails."""
        name = self.server_name or host
        try:
            connection.settimeout(limit.left())
            connection.getpeername()  # fails if it was reset, which wrap_socket does not mind
            encrypted = context.wrap_socket(connection, server_hostname=name)
            if encrypted.version() is None:  # nothing may be sent on what is not encrypted
                encrypted.close()
                raise NoAnswer("TLS: connection reset")
            return encrypted
        except TimeoutError as error:
            connection.close()
            raise limit.late("no TLS connection") from error
        except ssl.SSLError as error:
            connection.close()
            raise NoAnswer(f"TLS: {said(error)}") from error
        except OSError as error:
            connection.close()
            raise NoAnswer(f"TLS: {reason(error)}") from error
        except ValueError as error:
            connection.close()
            raise ObserveFailed(f"{name!r} is not the name of a server: {error}") from error
        except NoAnswer:
            connection.close()
            raise


def trust(fields: TlsFields, password: str, verify: bool = True) -> Trust:
    """From the fields of a document."""
    named = fields.ca, fields.certificate, fields.key
    return Trust(verify, *named, password=password, server_name=fields.server_name)


def said(error: ssl.SSLError) -> str:
    """What went wrong, as people say it."""
    message = getattr(error, "verify_message", "") or error.reason or str(error)
    return message.replace("_", " ").lower() if message.isupper() else message


def facts(connection: ssl.SSLSocket) -> dict[str, Any]:
    """What an established connection shows: version, cipher, and seconds until its certificate
    expires (negative: it has).
    """
    cipher = connection.cipher()
    certificate = connection.getpeercert(binary_form=True)
    return {
        "version": connection.version() or "",
        "cipher": cipher[0] if cipher else "",
        "expiry": expires(certificate) - time.time() if certificate else None,
    }


def expires(certificate: bytes) -> float:
    """When a certificate expires, in seconds since 1970; raises NoAnswer for what is none.

    Python decodes only certificates that it has verified, and an expired one is not: of RFC 5280,
    4.1, this reads the few bytes that lead to `notAfter`.
    """
    try:
        _, body, _ = _element(certificate, 0)  # Certificate
        _, body, _ = _element(body, 0)  # TBSCertificate
        position, kind, value = 0, 0, b""
        kind, value, position = _element(body, position)
        # An optional version in front, then serial number, signature, issuer, validity.
        for _ in range(4 if kind == 0xA0 else 3):
            kind, value, position = _element(body, position)
        _, _, after = _element(value, 0)  # notBefore
        kind, value, _ = _element(value, after)
        # A year of two digits is of 1950 to 2049 (4.1.2.5.1).
        text = value.decode("ascii")
        if kind == 0x17:
            text = ("19" if text[:2] >= "50" else "20") + text
        return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC).timestamp()
    except (IndexError, ValueError) as error:
        raise NoAnswer("TLS: the certificate does not say when it expires") from error


def _element(data: bytes, position: int) -> tuple[int, bytes, int]:
    """One element of DER: its tag, its content, and the position after it."""
    tag, length = data[position], data[position + 1]
    position += 2
    if length & 0x80:
        size = length & 0x7F
        length = int.from_bytes(data[position : position + size], "big")
        position += size
    if position + length > len(data):
        raise IndexError(position)
    return tag, data[position : position + length], position + length
