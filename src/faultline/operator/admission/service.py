"""The webhook of an operator: its server, its certificate, its configuration, its agents.

Every operator serves, whether it leads or not. The one that leads keeps the configuration as it is
to be, and says which agents remove faults of admission that nobody else removes.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from faultline.errors import FaultlineError, UsageError
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Object, metadata
from faultline.kubefaults import asking, webhooks
from faultline.operator.admission import certificates
from faultline.operator.admission.asking import Denied, Reviewer
from faultline.operator.admission.injecting import FLUSH, Injecting, allowed, denied
from faultline.operator.admission.requesters import ANNOTATION, Signer, same
from faultline.operator.admission.server import Answer, Server
from faultline.operator.spaces import Policy
from faultline.operator.writing import HALTS, HOSTS, VERSION

if TYPE_CHECKING:
    from faultline.operator.admission.judging import Judge

SERVICE = certificates.NAME
RENEW = 300.0  # seconds between two looks at certificates and configuration
AGAIN = 5.0  # between two looks at which agents have the duty
SWEEP = 30.0  # between two looks at what is overdue
PATIENCE = 20.0  # until the server must have reached us
WARDENS = 3  # agents that remove what is overdue
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Address:
    """Where it listens, and how the API server reaches it: by an address, or by a Service."""

    host: str
    port: int
    url: str = ""  # https://HOST:PORT
    service: str = ""  # NAME or NAME:PORT, in the namespace of the operator

    @classmethod
    def read(cls, listen: str, url: str = "", service: str = "") -> Address:
        """From a command line; raises UsageError."""
        host, _, port = listen.rpartition(":")
        host = host.strip("[]")
        if not host or not port.isdigit() or int(port) > 65535:
            raise UsageError(f"{listen!r} is no HOST:PORT", hint="--webhook 0.0.0.0:9443")
        if url and service:
            raise UsageError("the API server reaches it by an address or a Service, not by both")
        if url:
            parts = urlsplit(url)
            if parts.scheme != "https" or not parts.hostname or parts.path not in ("", "/"):
                raise UsageError(f"{url!r} is no address", hint="https://HOST:PORT, without a path")
        elif not service and host in ("0.0.0.0", "::", ""):  # noqa: S104 (it is compared)
            raise UsageError(
                f"the API server cannot reach {listen}",
                hint="--webhook-service NAME in a pod, else --webhook-url https://HOST:PORT",
            )
        return cls(host, int(port), url.rstrip("/"), service)


@dataclass(frozen=True, slots=True)
class Agent:
    """What matters of an agent."""

    alive: bool  # whether it answers
    warden: bool  # whether it has the duty


@dataclass
class Webhook:
    """The webhook of one operator. `start` and `stop` from one thread."""

    connect: Callable[[], Client]
    address: Address
    policy: Policy
    identity: str
    leads: Callable[[], bool]
    agents: Callable[[], Mapping[str, Agent]] = dict[str, Agent]
    renew: float = RENEW
    user: str = ""  # our own account, once the API server has told
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list[threading.Thread])
    _server: Server | None = None
    _keys: certificates.Keys | None = None

    def __post_init__(self) -> None:
        self._client = self.connect()
        self._asking = self.connect()
        self.injecting = Injecting(self._asking, self.identity, self.policy.own, lambda: self.user)
        self.judge: Judge | None = None
        self.signer: Signer | None = None
        self.reviewer = Reviewer(self._asking)

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Listen; the configuration follows. Raises ApiError, OSError, Unsupported."""
        from faultline.operator.admission.judging import Judge  # it knows every document

        self._keys = certificates.ensure(self._client, self.policy.own, renew=False)
        self.signer = Signer(self._keys.secret)
        self.judge = Judge(self._asking, self.signer, self.policy, self.reviewer, lambda: self.user)
        self._server = Server((self.address.host, self.address.port), self.handle)
        self._show(self._keys)
        self._server.start()
        for name, work in (("webhook-keep", self._keep), ("webhook-count", self._count)):
            thread = threading.Thread(target=work, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        self._stop.set()
        self.injecting.stop()
        if self._server is not None:
            self._server.stop()
        for each in self._threads:
            each.join(10)
        self._client.close()
        self._asking.close()

    @property
    def port(self) -> int:
        return self._server.port if self._server is not None else self.address.port

    # ------------------------------------------------------------------ requests

    def handle(self, path: str, told: Object) -> Answer | None:
        """One request of the API server. What does not know our path is told nothing."""
        assert self.signer is not None
        _, secret, *steps = path.split("/")
        request = cast(Object, told.get("request") or {})
        if secret != self.signer.path() or not request.get("uid"):
            return 404, {}
        match steps:
            case ["fault", ("validating" | "mutating") as phase, slot, fault]:
                return self.injecting.answer(phase, slot, fault, request)
            case ["ask"]:
                return self._judged(request, self._sign)
            case ["check"]:
                return self._judged(request, self._check)
            case _:
                return 404, {}

    def _judged(self, request: Object, judge: Callable[[Object], Object]) -> Answer:
        uid = str(request["uid"])
        try:
            return allowed(uid, judge(request))
        except Denied as error:
            return denied(uid, error.status, error.reason, error.message, error.causes)
        except FaultlineError as error:
            _log.warning("a request could not be judged: %s", error.message)
            return denied(uid, 500, "InternalError", f"it could not be judged: {error.message}")

    def _sign(self, request: Object) -> Object:
        """Who asks is written into it; what changes nothing that is asked for keeps what it has."""
        assert self.judge is not None
        assert self.signer is not None
        each = cast(Object, request.get("object") or {})
        notes = cast("dict[str, str]", metadata(each).get("annotations") or {})
        if request.get("operation") == "UPDATE" and same(request):
            old = cast(Object, request.get("oldObject") or {})
            before = cast("dict[str, str]", metadata(old).get("annotations") or {})
            return asking.noted(notes, ANNOTATION, before.get(ANNOTATION))
        kind = cast(Object, request["kind"])["kind"]
        asked = {**each, "kind": kind}
        if not metadata(each).get("namespace") and request.get("namespace"):
            asked["metadata"] = {**metadata(each), "namespace": request["namespace"]}
        signed = self.signer.sign(asked, self.judge.requester(request))
        return asking.noted(notes, ANNOTATION, signed)

    def _check(self, request: Object) -> Object:
        assert self.judge is not None
        self.judge.judge(request)
        return {}

    # ------------------------------------------------------------------ what is kept up

    def _show(self, keys: certificates.Keys) -> None:
        assert self._server is not None
        self._server.show(*certificates.serving(keys, self.names()))

    def names(self) -> list[str]:
        """What our certificate must be for."""
        if self.address.service:
            name = f"{self.address.service.partition(':')[0]}.{self.policy.own}.svc"
            return [name, f"{name}.cluster.local"]
        host = urlsplit(self.address.url).hostname if self.address.url else self.address.host
        return [host or self.address.host]

    def client_config(self) -> Object:
        """How the API server reaches us."""
        assert self.signer is not None
        secret = self.signer.path()
        if self.address.service:
            name, _, port = self.address.service.partition(":")
            return {"service": {"namespace": self.policy.own, "name": name,
                                "port": int(port or 443), "path": f"/{secret}"}}  # fmt: skip
        host = f"[{self.address.host}]" if ":" in self.address.host else self.address.host
        url = self.address.url or f"https://{host}:{self.port}"
        return {"url": f"{url}/{secret}"}

    def _keep(self) -> None:
        """What lies in the Secret, and by it the configuration, is looked at now and then."""
        begun, due, swept, led = time.monotonic(), 0.0, -SWEEP, False
        while not self._stop.is_set():
            try:
                leads = self.leads()
                if time.monotonic() >= due or (leads and not led):
                    self._renewed()
                    due = time.monotonic() + self.renew
                led = leads
                if not self.user:
                    self._learn()
                if self.leads():
                    self._wardens()
                    if time.monotonic() >= swept + SWEEP:
                        self.sweep()
                        swept = time.monotonic()
            except FaultlineError as error:
                if self.user or time.monotonic() > begun + PATIENCE:
                    _log.warning("the webhook: %s", error.message)
            early = not self.user and time.monotonic() < begun + PATIENCE
            self._stop.wait(0.5 if early else AGAIN)

    def _renewed(self) -> None:
        """What is trusted is told to the server before anything is shown that needs it: by the one
        that leads, who also renews it.
        """
        leads = self.leads()
        keys = certificates.ensure(self._client, self.policy.own, renew=leads)
        if leads:
            asking.install(self._client, self.policy.own, self.client_config(), keys.bundle)
        if keys != self._keys:
            self.signer = Signer(keys.secret)
            assert self.judge is not None
            self.judge.signer = self.signer
        self._keys = keys
        self._show(keys)

    def _learn(self) -> None:
        """Who we are ourselves: the API server tells our own webhook, with a Halt that it does not
        keep. That it does also shows that it reaches us.
        """
        assert self.signer is not None
        made = {"apiVersion": VERSION, "kind": "Halt", "metadata": {"name": "who-am-i"}, "spec": {}}
        path = HALTS.path()
        found = self._client.rest.request("POST", path, {"dryRun": "All"}, made).json()
        known = self.signer.requester({**found, "kind": "Halt"})
        if known is None:
            raise ApiError(0, "NotReached", "the API server does not reach it yet")
        self.user = known.user
        _log.info("the API server reaches the webhook; we are %s", self.user)

    def _wardens(self) -> None:
        """A few agents that answer have the duty; one that does not keeps it while nobody else can
        have it.
        """
        agents = self.agents()
        alive = {name for name, each in agents.items() if each.alive}
        held = {name for name, each in agents.items() if each.warden}
        wanted = sorted(held & alive)[:WARDENS]
        wanted += sorted(alive - held)[: WARDENS - len(wanted)]
        lost = held - set(wanted) if len(wanted) == WARDENS else set[str]()
        for name in (*sorted(set(wanted) - held), *sorted(lost)):
            try:
                self._client.patch(HOSTS, name, {"spec": {"warden": name in wanted}})
            except ApiError as error:
                if error.reason != "NotFound":
                    raise

    def sweep(self) -> None:
        """Remove what is overdue ourselves; agents do it where there is no operator."""
        for each in webhooks.standing(self._client):
            if each.overdue and webhooks.remove(self._client, each):
                _log.warning("%s %s of %s was overdue", each.kind.kind, each.name, each.fault)

    def _count(self) -> None:
        while not self._stop.wait(FLUSH):
            try:
                self.injecting.flush()
            except ApiError as error:
                _log.warning("counts cannot be written: %s", error.message)
                self._stop.wait(AGAIN)
