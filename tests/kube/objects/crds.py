"""Kinds of others that a server may have: as little of them as it takes to be served."""

from __future__ import annotations

import time
from collections.abc import Iterable

from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Object

KINDS = {
    "HTTPRoute": ("httproutes", "gateway.networking.k8s.io", "v1"),
    "CiliumNetworkPolicy": ("ciliumnetworkpolicies", "cilium.io", "v2"),
    "NetworkPolicy": ("networkpolicies", "crd.projectcalico.org", "v1"),  # of Calico
    "Middleware": ("middlewares", "traefik.io", "v1alpha1"),
}


def _crd(kind: str) -> Object:
    plural, group, version = KINDS[kind]
    anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{plural}.{group}",
            "annotations": {"api-approved.kubernetes.io": "unapproved, a test"},
        },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "singular": kind.lower()},
            "versions": [
                {
                    "name": version,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": anything},
                }
            ],
        },
    }


def install(client: Client, *kinds: str) -> None:
    """Have these kinds served; what is no kind of others is there anyway."""
    wanted = [each for each in kinds if each in KINDS]
    where = client.kind("customresourcedefinitions", "apiextensions.k8s.io")
    for each in wanted:
        try:
            client.create(where, _crd(each))
        except ApiError as error:
            if error.reason != "AlreadyExists":
                raise
    until = time.monotonic() + 60
    while not _served(client, wanted):
        assert time.monotonic() < until, f"not served: {wanted}"
        time.sleep(0.05)


def _served(client: Client, kinds: Iterable[str]) -> bool:
    for each in kinds:
        plural, group, version = KINDS[each]
        if client.rest.request("GET", f"/apis/{group}/{version}/{plural}").status != 200:
            return False
    return True
