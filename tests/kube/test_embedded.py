"""A kubeconfig from a Secret: what it may hold, and what it may not."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
import yaml

from faultline.errors import InvalidDocument
from faultline.kubeapi.embedded import access_of

DATA = base64.b64encode(b"PEM").decode()


def text(cluster: dict[str, Any] | None = None, user: dict[str, Any] | None = None) -> str:
    return yaml.safe_dump({
        "current-context": "a",
        "clusters": [{"name": "c", "cluster": {"server": "https://there:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": user or {"token": "t"}}],
        "contexts": [{"name": "a", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
    })  # fmt: skip


def test_all_that_it_needs_stands_in_it(tmp_path: Path) -> None:
    user = {"client-certificate-data": DATA, "client-key-data": DATA, "token": "secret"}
    found = access_of(text({"certificate-authority-data": DATA}, user), "", tmp_path, "it")
    assert (found.server, found.namespace) == ("https://there:6443", "shop")
    assert found.authority is not None
    assert found.token is not None
    assert found.certificate is not None
    for path in (found.authority, found.token, *found.certificate):
        assert path.stat().st_mode & 0o077 == 0, "nobody else may read it"
    assert found.token.read_text() == "secret"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (text(user={"exec": {"command": "id"}}), "has exec"),
        (text(user={"auth-provider": {"name": "gcp"}}), "has auth-provider"),
        (text(user={"tokenFile": "/var/run/secrets/token"}), "has tokenFile"),
        (text(user={"client-key": "/root/key"}), "has client-key"),
        (text({"certificate-authority": "/etc/ca.crt"}), "has certificate-authority"),
        (text({"insecure-skip-tls-verify": True}), "has insecure-skip-tls-verify"),
        (text({"proxy-url": "http://there"}), "has proxy-url"),
        (text({"server": "http://there"}), "https is needed"),
        (text({"certificate-authority-data": "%%"}), "no base64"),
        ("clusters: 3", "no kubeconfig"),
        ("{", "no kubeconfig"),
        ("", "no kubeconfig"),
    ],
)
def test_what_leads_elsewhere_is_refused(given: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidDocument, match=said):
        access_of(given, "", tmp_path, "it")


def test_a_context_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidDocument, match="no context 'b'"):
        access_of(text(), "b", tmp_path, "it")
