"""What the operator itself looks at before it carries something out: who asked for it, and whether
they may do it to those who were found. A webhook can be away; this cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from faultline.errors import FaultlineError, Refused, UnknownName
from faultline.injection import registry
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Object
from faultline.kubefaults.carrying import Order
from faultline.kubefaults.rights import Right
from faultline.operator import resolving
from faultline.operator.admission.asking import Reviewer, demanded, refusal
from faultline.operator.admission.requesters import Requester, Signer
from faultline.operator.admission.service import Address, Agent, Webhook
from faultline.operator.caches import Caches
from faultline.operator.cluster import Cluster
from faultline.operator.hosts import OBJECTS
from faultline.operator.leading import Leader
from faultline.operator.model import FaultView
from faultline.operator.spaces import Policy, Space
from faultline.operator.views import FaultObject

UNSIGNED = "nobody asked for it through our webhook: delete it and apply it again"


class Gate:
    """Looks at every Fault. Without a signer everybody is trusted, and only namespaces count."""

    def __init__(
        self,
        policy: Policy,
        reviewer: Reviewer,
        signer: Callable[[], Signer | None],
        *,
        trusting: bool,
    ) -> None:
        self._policy, self._reviewer, self._signer = policy, reviewer, signer
        self._trusting = trusting

    def requester(self, fault: FaultObject) -> Requester | None:
        """Who asked for it; None if nobody did through our webhook."""
        signer = self._signer()
        return signer.requester(fault.whole) if signer is not None else None

    def passed(
        self, fault: FaultObject, cluster: Cluster | None, spaces: Mapping[str, Space]
    ) -> tuple[FaultView, Cluster | None]:
        """The Fault and the cluster as whoever asked for it may have them; raises ApiError."""
        view = fault.view
        if cluster is None or view.spec is None:
            return view, cluster
        closed = self._policy.all_closed(spaces)
        cluster = replace(cluster, closed={**cluster.closed, **closed})
        if self._trusting:
            return view, cluster
        who = self.requester(fault)
        if who is None:
            if view.status.phase in ("pending", "refused"):
                return replace(view, spec=None, problem=UNSIGNED), None
            return view, None  # it goes on as it is, and nothing more is hit
        return view, self._permitted(who, view, cluster)

    def _permitted(self, who: Requester, view: FaultView, cluster: Cluster) -> Cluster:
        """Without the namespaces and nodes that whoever asks has no right to hit."""
        spec = view.spec
        assert spec is not None
        try:
            demands = registry.get(spec.fault).demands
        except UnknownName:
            return cluster  # of objects: each change is looked at when it is planned
        try:
            selector = resolving.selector_of(spec)
            found = resolving.candidates(spec, selector, view.namespace, cluster)
        except FaultlineError:
            return cluster  # the reconciler says what is wrong with it
        aims = [aim for each in (*found.free, *found.rest) for aim in each.aims]
        spaces = sorted({aim.pod.namespace for aim in aims if aim.pod is not None})
        closed = dict(cluster.closed)
        for space in spaces:
            missing = self._reviewer.missing(who, demanded(demands, [space], nodes=False))
            if missing:
                closed[space] = refusal(who, spec.fault, missing)
        nodes = ""
        if any(aim.pod is None for aim in aims):
            missing = self._reviewer.missing(who, demanded(demands, (), nodes=True))
            nodes = refusal(who, spec.fault, missing) if missing else ""
        return replace(cluster, closed=closed, closed_nodes=nodes)

    def permit(self, fault: FaultObject | None, what: str, demands: Sequence[Right]) -> None:
        """Whether whoever asked for a fault of objects may make its changes; raises Refused."""
        if self._trusting:
            return
        who = self.requester(fault) if fault is not None else None
        if who is None:
            raise Refused(UNSIGNED)
        missing = self._reviewer.missing(who, demands)
        if missing:
            raise Refused(refusal(who, what, missing))


class Guarded:
    """All of it, as one operator has it: its webhook, if it serves one, and its own look."""

    def __init__(
        self, connect: Callable[[], Client], identity: str, leader: Leader, caches: Caches,
        address: Address | None, policy: Policy,
    ) -> None:  # fmt: skip
        self._caches, self._client = caches, connect()
        self.webhook: Webhook | None = None
        if address is not None:
            self.webhook = Webhook(
                connect, address, policy, identity, lambda: leader.leads, self._agents
            )
        self.gate = Gate(
            policy, Reviewer(self._client), self._signer, trusting=self.webhook is None
        )

    def _signer(self) -> Signer | None:
        return self.webhook.signer if self.webhook is not None else None

    def _agents(self) -> dict[str, Agent]:
        alive = self._caches.alive
        return {
            name: Agent(alive.get(name, False), host.spec.warden)
            for name, host in self._caches.hosts.all().items()
            if name != OBJECTS
        }

    def start(self) -> None:
        """Raises ApiError, OSError, Unsupported."""
        if self.webhook is not None:
            self.webhook.start()

    def stop(self) -> None:
        if self.webhook is not None:
            self.webhook.stop()
        self._client.close()

    def passed(
        self, fault: FaultObject, cluster: Cluster | None
    ) -> tuple[FaultView, Cluster | None]:
        """As `Gate.passed`."""
        return self.gate.passed(fault, cluster, self._caches.spaces.all())

    def unasked(self, each: Object) -> str:
        """Why an object counts as nobody's; empty if somebody asked for it."""
        signer = self._signer()
        return UNSIGNED if signer is not None and signer.requester(each) is None else ""

    def permit(self, order: Order, demands: Sequence[Right]) -> None:
        """As `Gate.permit`, by who wants it."""
        path = order.owner.partition("/")[2]
        self.gate.permit(self._caches.faults.get(path), order.fault, demands)
