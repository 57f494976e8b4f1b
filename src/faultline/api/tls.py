"""What a client of TLS says of itself and asks of the server, the same for every protocol."""

from __future__ import annotations

from pydantic import model_validator

from faultline.api.model import Model
from faultline.api.secret import SecretRef


class TlsFields(Model):
    """Whom a client of TLS trusts, and by what it is known."""

    ca: str = ""
    """A file with the certificates of the authorities that are trusted instead of those that this
    host trusts."""
    certificate: str = ""
    """A file with the certificate by which the client is known, and those that lead up to its
    authority."""
    key: str = ""
    """A file with the key of `certificate`; without it, the key lies in the same file."""
    key_password: SecretRef | None = None
    """Where the password of the key lies, if it has one."""
    server_name: str = ""
    """The name that the certificate of the server must bear; without it, the name that was
    asked."""

    @model_validator(mode="after")
    def _key_with_its_certificate(self) -> TlsFields:
        if (self.key or self.key_password) and not self.certificate:
            raise ValueError("expected key only with certificate")
        return self
