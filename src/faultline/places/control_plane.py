"""Which programs of the control plane of Kubernetes run on this machine, by their names."""

from __future__ import annotations

from typing import Final

from faultline.kernel import procfs

PROGRAMS: Final = frozenset(
    {
        "coredns", "etcd", "k3s-server", "kube-apiserver", "kube-controller-manager", "kube-dns",
        "kube-proxy", "kube-scheduler", "kubelet",
    }
)  # fmt: skip


def components() -> list[str]:
    """The names of those that run, sorted."""
    found: set[str] = set()
    for each in procfs.processes():
        if each.cmdline:
            names = {each.name, *(word.rpartition("/")[2] for word in each.cmdline[:2])}
            found |= names & PROGRAMS
    return sorted(found)
