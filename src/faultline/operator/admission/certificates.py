"""Certificates of the webhook: an authority of our own, and what it signs.

The authority lies in a Secret, so that all operators have the same; the certificate that a server
shows is made by each for itself, lives in memory alone, and is renewed long before it ends.
"""

from __future__ import annotations

import base64
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from faultline.errors import ApplyFailed, Unsupported
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Kind, Object

SECRETS = Kind("Secret", "secrets", "v1")
NAME = "faultline-webhook"
"""Of the Secret, and of the Service."""
AUTHORITY = timedelta(days=5 * 365)
RENEWED = timedelta(days=365)
"""When an authority has less than this left there is a new one; the old one is trusted to its end,
so that servers whose certificate it has signed are believed until they have another."""
SERVING = timedelta(days=30)
_TRIES = 5


@dataclass(frozen=True, slots=True)
class Keys:
    """What lies in the Secret."""

    bundle: bytes  # certificates of authorities as PEM, the newest first
    key: bytes  # of the newest
    secret: bytes  # what we sign requesters with

    def to_data(self) -> dict[str, str]:
        told = {"ca.crt": self.bundle, "ca.key": self.key, "secret": self.secret}
        return {name: base64.b64encode(value).decode() for name, value in told.items()}

    @classmethod
    def of(cls, found: Object) -> Keys | None:
        """Those of a Secret; None if it does not hold them."""
        data = cast("dict[str, str]", found.get("data") or {})
        try:
            parts = [base64.b64decode(data[name]) for name in ("ca.crt", "ca.key", "secret")]
        except (KeyError, ValueError):
            return None
        return cls(*parts) if all(parts) and len(parts[2]) >= 16 else None


def ensure(
    client: Client, namespace: str, now: datetime | None = None, *, renew: bool = True
) -> Keys:
    """What is in the Secret, made or, with `renew`, renewed where that is due; raises ApiError,
    Unsupported.
    """
    at = now or datetime.now(UTC)
    for _ in range(_TRIES):
        try:
            found = client.get(SECRETS, NAME, namespace)
        except ApiError as error:
            if error.reason != "NotFound":
                raise
            found = None
        old = Keys.of(found) if found is not None else None
        if old is not None and not renew:
            return old
        new = _renewed(old, at)
        if new == old and old is not None:
            return old
        try:
            _write(client, namespace, found, new)
        except ApiError as error:
            if error.reason not in ("Conflict", "AlreadyExists"):
                raise
            continue  # another operator was quicker: what it wrote counts
        return new
    raise ApplyFailed(f"the Secret {namespace}/{NAME} is written all the time by somebody else")


def _write(client: Client, namespace: str, found: Object | None, keys: Keys) -> None:
    if found is not None:
        client.replace(SECRETS, {**found, "data": {**found.get("data", {}), **keys.to_data()}})
        return
    meta = {"name": NAME, "labels": {"app.kubernetes.io/part-of": "faultline"}}
    made = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "type": "Opaque"}
    client.create(SECRETS, {**made, "data": keys.to_data()}, namespace)


def _renewed(old: Keys | None, now: datetime) -> Keys:
    if old is None:
        bundle, key = authority(now)
        return Keys(bundle, key, secrets.token_bytes(32))
    x509 = _library().x509
    known = x509.load_pem_x509_certificates(old.bundle)
    if known[0].not_valid_after_utc - now > RENEWED:
        return old
    bundle, key = authority(now)
    kept = [one for one in known if one.not_valid_after_utc > now]
    return Keys(bundle + b"".join(_pem(one) for one in kept), key, old.secret)


@dataclass(frozen=True, slots=True)
class _Library:
    x509: Any
    hashes: Any
    serialization: Any
    ec: Any


def _library() -> _Library:
    try:
        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization
        from cryptography.hazmat.primitives.asymmetric import ec
    except ImportError as error:
        raise Unsupported(
            "cryptography is not installed", hint="pip install 'faultline[kubernetes]'"
        ) from error
    return _Library(x509, hashes, serialization, ec)


def authority(now: datetime) -> tuple[bytes, bytes]:
    """A certificate that signs others, and its key."""
    lib = _library()
    key = lib.ec.generate_private_key(lib.ec.SECP256R1())
    name = _name("faultline webhook authority")
    usage = dict.fromkeys(_USAGES, False) | {"key_cert_sign": True, "crl_sign": True}
    made = (
        _builder(name, name, key.public_key(), now, AUTHORITY)
        .add_extension(lib.x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(lib.x509.KeyUsage(**usage), critical=True)
        .add_extension(_known_by(key.public_key()), critical=False)
        .sign(key, lib.hashes.SHA256())
    )
    return _pem(made), _key(key)


_USAGES = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment"),
    *("key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)


def serving(keys: Keys, names: Sequence[str], now: datetime | None = None) -> tuple[bytes, bytes]:
    """A certificate for a server of these names and addresses, and its key."""
    lib, at = _library(), now or datetime.now(UTC)
    issuer = lib.x509.load_pem_x509_certificates(keys.bundle)[0]
    signer = lib.serialization.load_pem_private_key(keys.key, None)
    key = lib.ec.generate_private_key(lib.ec.SECP256R1())
    others = lib.x509.SubjectAlternativeName([_alternative(each) for each in names])
    extended = lib.x509.ExtendedKeyUsage([lib.x509.oid.ExtendedKeyUsageOID.SERVER_AUTH])
    made = (
        _builder(_name("faultline webhook"), issuer.subject, key.public_key(), at, SERVING)
        .add_extension(others, critical=False)
        .add_extension(extended, critical=False)
        .add_extension(
            lib.x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()),
            critical=False,
        )
        .add_extension(lib.x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(signer, lib.hashes.SHA256())
    )
    return _pem(made), _key(key)


def _builder(subject: Any, issuer: Any, key: Any, now: datetime, lasts: timedelta) -> Any:
    x509 = _library().x509
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ
        .not_valid_after(now + lasts)
    )


def _known_by(key: Any) -> Any:
    """So that of two authorities of one name the right one is found."""
    return _library().x509.SubjectKeyIdentifier.from_public_key(key)


def _name(words: str) -> Any:
    x509 = _library().x509
    return x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, words)])


def _alternative(name: str) -> Any:
    x509 = _library().x509
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(certificate: Any) -> bytes:
    return certificate.public_bytes(_library().serialization.Encoding.PEM)


def _key(key: Any) -> bytes:
    form = _library().serialization
    return key.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
