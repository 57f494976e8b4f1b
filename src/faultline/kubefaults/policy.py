"""Which objects a fault may name: some never, some only where it is allowed by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from faultline.errors import Refused
from faultline.kubeapi.model import Object, metadata
from faultline.kubefaults.fields import read

if TYPE_CHECKING:
    from faultline.kubefaults.model import View

OURS: Final = "faultline.dev"
PROTECT: Final = "faultline.dev/protect"
_GROUPS: Final = frozenset(
    {
        *("rbac.authorization.k8s.io", "admissionregistration.k8s.io", "apiextensions.k8s.io"),
        *("apiregistration.k8s.io", "certificates.k8s.io", "authentication.k8s.io"),
        *("authorization.k8s.io", "flowcontrol.apiserver.k8s.io", "node.k8s.io"),
        *("scheduling.k8s.io", "storage.k8s.io", "internal.apiserver.k8s.io"),
    }
)
"""Groups whose objects say who may do what, or how the cluster itself works."""
_KINDS: Final = frozenset(
    {
        *("Secret", "ServiceAccount", "Namespace", "Node", "PersistentVolume", "PodSecurityPolicy"),
        *("ComponentStatus", "Binding"),
    }
)
_CONTAINERS: Final = ("containers", "initContainers", "ephemeralContainers")
_SYSTEM: Final = ("kube-system", "kube-public", "kube-node-lease")


def spared(each: Object) -> None:
    """Raise Refused for what is never touched, whatever is allowed."""
    group, kind = _group(each), str(each.get("kind"))
    meta = metadata(each)
    labels: Any = meta.get("labels") or {}
    if group == OURS or labels.get("app.kubernetes.io/part-of") == "faultline":
        raise Refused(f"a {kind} of Faultline itself is never touched")
    if read(each, ("metadata", "annotations", PROTECT)) == "true":
        raise Refused(f"{kind} {meta.get('name', '')} is annotated as protected")


def check(view: View, each: Object, namespace: str = "", *, namespaced: bool = True) -> None:
    """Raise Refused for an object that a fault may not name."""
    spared(each)
    kind = str(each.get("kind"))
    if _group(each) in _GROUPS or kind in _KINDS or not namespaced:
        view.guard("any-kind", f"a {kind} may hold rights, secrets or the cluster together")
    where = str(metadata(each).get("namespace") or namespace)
    if where in _SYSTEM:
        view.guard("kube-system", f"{where} is a namespace of the cluster itself")


def pods(view: View, given: Object) -> None:
    """Raise Refused where what is given makes pods with more rights than who asks may have."""
    for path in (("spec",), ("spec", "template", "spec"),
                 ("spec", "jobTemplate", "spec", "template", "spec")):  # fmt: skip
        spec: Any = read(given, path)
        if isinstance(spec, dict) and _privileged(spec):
            view.guard("privileged-pod", "its pods would have rights on their node, or an account")


def _group(each: Object) -> str:
    return str(each.get("apiVersion") or "").rpartition("/")[0]


def _privileged(spec: Any) -> bool:
    host = any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC"))
    volumes = any("hostPath" in each for each in _entries(spec, "volumes"))
    account = bool(spec.get("serviceAccountName") or spec.get("serviceAccount"))
    inside = [each for name in _CONTAINERS for each in _entries(spec, name)]
    contexts: list[Any] = [each.get("securityContext") or {} for each in inside]
    raised = any(each.get("privileged") or read(each, ("capabilities", "add")) for each in contexts)
    return host or volumes or account or raised


def _entries(spec: Any, name: str) -> list[Any]:
    found: Any = spec.get(name)
    every = cast("list[Any]", found) if isinstance(found, list) else []
    return [each for each in every if isinstance(each, dict)]
