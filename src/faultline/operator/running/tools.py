"""What carries out the runs of one namespace: the same engine as on one host, with other tools."""

from __future__ import annotations

import platform
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faultline
from faultline.api.document import invalid_document
from faultline.api.run import ENGINE, OPERATOR, Environment, Run
from faultline.changes.store import Store as Folders
from faultline.engine.doing import HostDoer
from faultline.engine.driver import Driver, Listener
from faultline.engine.ports import Injecting, Tools
from faultline.engine.runs import Runs
from faultline.engine.signals import Heard
from faultline.engine.wiring import engines
from faultline.errors import Halted, Refused
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import Answer, ApiError, Object, Request, Rest, Wrapped
from faultline.operator.running import bounds, clocks
from faultline.operator.running.faults import RUNS, ClusterFaults, Resolve
from faultline.operator.running.members import ClusterMembers
from faultline.operator.running.traffic import ClusterTraffics
from faultline.probes.prober import Probers
from faultline.stores.kube import KubeStore
from faultline.stores.model import Summary


class Within(Wrapped):
    """A connection for which one namespace is meant where none is named. Closed it stays closed:
    what still acts when an engine ends must not open it again.
    """

    def __init__(self, rest: Rest, namespace: str) -> None:
        super().__init__(rest)
        self._namespace = namespace
        self._closed = False

    def send(self, asked: Request) -> Answer:
        self._check()
        return super().send(asked)

    def lines(
        self, path: str, query: Mapping[str, str], timeout: float
    ) -> AbstractContextManager[Iterator[bytes]]:
        self._check()
        return super().lines(path, query, timeout)

    def _check(self) -> None:
        if self._closed:
            raise ApiError(0, "Closed", "the engine has ended: another one goes on")

    def close(self) -> None:
        self._closed = True
        super().close()

    @property
    def namespace(self) -> str:
        return self._namespace


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What an operator has for all runs."""

    connect: Callable[[], Rest]
    resolve: Resolve
    halted: Callable[[], str | None]  # why everything is stopped; None if nothing is
    folder: Path  # for locks: nothing in it counts
    image: str = ""  # of the Jobs that send traffic
    unasked: Callable[[Object], str] = lambda _run: ""  # why a Run counts as nobody's


def takes(run: Summary) -> bool | None:
    """What an operator begins at once: what was made for it, and what nobody else has made."""
    labelled = run.labels.get(ENGINE)
    if labelled is not None:
        return labelled == OPERATOR
    return None if run.creator else True


class ClusterRuns(Runs):
    """The runs of one namespace, as an operator carries them out."""

    def __init__(self, around: Surroundings, namespace: str, *, cached: bool = False) -> None:
        self.around, self.namespace = around, namespace
        folder = around.folder / namespace
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        store = KubeStore(self.reach, namespace, cached=cached)
        # The temporary folder of a pod is everybody's; nothing that is in it counts.
        folders = Folders(folder, folder)
        super().__init__(folder, self.tools, bounds.check_fault, opened=store, folders=folders)
        self._client = Client(self.reach())

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        self._client.close()

    def again(self) -> ClusterRuns:
        return ClusterRuns(self.around, self.namespace)

    def halted(self) -> str:
        why = self.around.halted()
        return "" if why is None else f"halted: {why}" if why else "halted"

    def check_halt(self) -> None:
        if why := self.halted():
            raise Halted(why)

    def driver(self, name: str, listener: Listener | None = None) -> Driver:
        made = super().driver(name, listener)
        made.carrying.halted = self.halted
        if isinstance(made.tools.traffic, ClusterTraffics):
            made.tools.traffic.run = made.carrying.run
        return made

    def check(self, run: Run) -> None:
        """Whether the run may be carried out here; raises InvalidDocument, Refused."""
        check(self.namespace, run)
        found = self._client.get(RUNS, run.metadata.name, self.namespace)
        if why := self.around.unasked({**found, "kind": "Run"}):
            raise Refused(why)

    def reach(self) -> Rest:
        """A connection to the cluster, with this namespace."""
        return Within(self.around.connect(), self.namespace)

    def tools(self) -> Tools:
        heard, around = Heard(), self.around
        traffic = ClusterTraffics(self.reach, around.image)
        client = self._client
        doer = HostDoer(self.again, self.reach)

        @contextmanager
        def injector() -> Generator[Injecting]:
            yield ClusterFaults(client, self.namespace, around.resolve)

        return Tools(
            injector, Probers(traffic.figures, heard.get, self.reach), traffic,
            partial(environment, client), engines, heard=heard, doer=doer,
            choose=_left_to_the_operator, instant=clocks.instant,
            members=ClusterMembers(self.reach, self.namespace),
            check=self.check, goes_on=True,
        )  # fmt: skip


def _left_to_the_operator(*_asked: object) -> None:
    """What a selector means is seen when the Fault is there."""


def check(namespace: str, run: Run) -> None:
    """Raise InvalidDocument if the run asks for what an operator does not do."""
    found = bounds.problems(run.spec.resolved, namespace)
    waiting: list[Any] = list(run.spec.children.values())
    while waiting:
        child = waiting.pop()
        found += bounds.problems(child.resolved, namespace)
        waiting += child.children.values()
    if found:
        raise invalid_document(f"run {run.metadata.name}", found)


def environment(client: Client) -> Environment:
    """Where a run of a cluster takes place."""
    try:
        version = ".".join(str(part) for part in client.version())
    except ApiError:
        version = "?"
    return Environment(
        hostname=client.rest.server,
        kernel=f"Kubernetes {version}",
        python=platform.python_version(),
        faultline=faultline.__version__,
        boot_id=clocks.BOOT,
    )
