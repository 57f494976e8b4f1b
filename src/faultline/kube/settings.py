"""What can be chosen when Faultline is put into a cluster: the values of the chart, and of
`faultline kube manifests --set`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol, cast

from pydantic import Field, ValidationError

from faultline import __version__
from faultline.api.model import Model
from faultline.errors import UsageError
from faultline.kube import capabilities, rbac

PROFILES = ("full", "unprivileged", "api-only")
Profile = Literal["full", "unprivileged", "api-only"]
Seconds = Annotated[str, Field(pattern=r"^[0-9]+(ms|s|m|h)$")]
Document = dict[str, Any]


class AgentSettings(Model):
    """The agents, one on each node; the profile `api-only` has none."""

    faults: list[str] = Field(default_factory=list[str])
    """The faults that agents carry out, as `family` or `family.fault`; every other one is refused.
    Empty: all. The profile `unprivileged` has the capabilities of just these."""
    lease: Seconds = "40s"
    """When the API server was not reached for so long, everything on the node is undone."""
    renew: Seconds = "10s"
    """How often that lease is renewed."""
    extra_args: list[str] = Field(default_factory=list[str])
    """Further arguments of `faultline agent`: `--no-doctor`, `--leave`."""
    state_folder: Annotated[str, Field(pattern=r"^/.+")] = "/var/lib/faultline"
    """The folder of the node in which the journal lies. It outlives pods and reboots."""
    priority_class_name: str = "system-node-critical"
    """So that a node that runs out of memory does not evict its agent."""
    node_selector: dict[str, str] = Field(default_factory=lambda: {"kubernetes.io/os": "linux"})
    """Nodes that get an agent."""
    tolerations: list[Document] = Field(default_factory=lambda: [{"operator": "Exists"}])
    """Taints that do not keep it away: all, so that no node is without."""
    resources: Document = Field(
        default_factory=lambda: {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"memory": "256Mi"},
        }
    )
    """Of the agent itself. Keepers and loads are outside of the pod, where these do not count."""
    seccomp: Literal["RuntimeDefault", "Unconfined"] = "Unconfined"
    """The seccomp profile of `unprivileged`: that of the runtime allows what the capabilities are
    for only where runtime and kernel are of 2021 or newer."""
    se_linux_type: str = "spc_t"
    """The SELinux type of `unprivileged`; nodes without SELinux do not look at it."""


class OperatorSettings(Model):
    """The operator."""

    replicas: Annotated[int, Field(ge=1, le=9)] = 1
    """How many; one leads, and another one takes over when it dies."""
    rate: Annotated[int, Field(ge=1, le=10000)] = 100
    """Requests a second to the API server, on average."""
    object_faults: list[str] = Field(default_factory=lambda: list(rbac.OBJECTS))
    """Families of faults of Kubernetes objects for which it gets the rights. Empty: none."""
    run_namespaces: list[str] = Field(default_factory=lambda: ["*"])
    """Namespaces in which it may carry out Runs and Schedules; `*` stands for all."""
    secret_namespaces: list[str] = Field(default_factory=list[str])
    """Namespaces whose Runs may name Secrets, which it may read then."""
    opt_in: bool = False
    """Whether only namespaces that are annotated with `faultline.dev/allow=true` may be hit."""
    dry_runs: bool = False
    """Whether it may try faults of admission by dry runs, for which it gets the right to create
    anything; without that the requests of others show their effect."""
    extra_args: list[str] = Field(default_factory=list[str])
    """Further arguments of `faultline operator`."""
    priority_class_name: str = "system-cluster-critical"
    """So that it is not the first to go."""
    node_selector: dict[str, str] = Field(default_factory=lambda: {"kubernetes.io/os": "linux"})
    """Nodes it may run on."""
    tolerations: list[Document] = Field(default_factory=list[Document])
    """Taints that do not keep it away."""
    affinity: Document = Field(default_factory=dict[str, Any])
    """Where it should run."""
    resources: Document = Field(
        default_factory=lambda: {
            "requests": {"cpu": "50m", "memory": "96Mi"},
            "limits": {"memory": "512Mi"},
        }
    )
    """What it may take."""


class MonitoringSettings(Model):
    """What Prometheus and Grafana are told."""

    service_monitor: bool = False
    """A ServiceMonitor, for the Prometheus operator."""
    rules: bool = False
    """A PrometheusRule with the alerts, for the same."""
    dashboard: bool = False
    """A ConfigMap with the dashboard, for the sidecar of Grafana's chart."""


class WebhookSettings(Model):
    """The webhook that asks whether those who create a Fault may do what it does."""

    enabled: bool = True
    """Whether there is one. Without it whoever may create a Fault may have it do anything."""


class Settings(Model):
    """Everything that can be chosen."""

    profile: Profile = "full"
    """`full`: agents are privileged. `unprivileged`: they have single capabilities instead, for
    clusters that refuse privileged pods. `api-only`: no agents, only faults of Kubernetes
    objects."""
    registry: str = "localhost"
    """Where the image lies: the one value to change behind an air gap."""
    image: Annotated[str, Field(pattern=r"^[^\s@]+$")] = "faultline"
    """Its name in the registry."""
    tag: str = __version__
    """Its tag, or a digest that begins with `sha256:`."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When nodes fetch it."""
    pull_secrets: list[str] = Field(default_factory=list[str])
    """Secrets with the credentials of the registry."""
    agent: AgentSettings = Field(default_factory=AgentSettings)
    """The agents."""
    operator: OperatorSettings = Field(default_factory=OperatorSettings)
    """The operator."""
    monitoring: MonitoringSettings = Field(default_factory=MonitoringSettings)
    """Metrics."""
    webhook: WebhookSettings = Field(default_factory=WebhookSettings)
    """Admission."""

    @property
    def reference(self) -> str:
        """The image as a pod names it."""
        between = "@" if self.tag.startswith("sha256:") else ":"
        return "/".join(filter(None, (self.registry, self.image))) + between + self.tag

    @property
    def capabilities(self) -> list[str]:
        """Those of the agents with the profile `unprivileged`."""
        return capabilities.names(self.agent.faults)


def chosen(values: Document, pairs: tuple[str, ...] = ()) -> Settings:
    """Settings from values as the chart has them, and `a.b=VALUE` pairs as Helm takes them; raises
    UsageError.
    """
    import yaml

    told: Document = dict(values)
    for pair in pairs:
        path, equals, text = pair.partition("=")
        if not equals:
            raise UsageError(f"{pair!r} sets nothing", hint="--set agent.lease=60s")
        *above, last = path.split(".")
        part = told
        for each in above:
            part = cast(Document, part.setdefault(each, {}))
        try:
            part[last] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise UsageError(f"{pair!r}: {text!r} is no value: {error}") from error
    try:
        return Settings.model_validate(told)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{where}: {first['msg']}", hint="values and what they mean: deploy/chart/values.yaml"
        ) from error


class Values(Protocol):
    """What is chosen, or what stands for it."""

    namespace: Any
    image: Any
    agent: Any
    operator: Any
    pull_policy: Any
    pull_secrets: Any  # as a pod lists them
    faults: Any  # those that agents carry out, joined by commas
    agent_security: Any  # the securityContext of an agent
    operator_more: Any  # arguments of the operator that follow from what is chosen

    def joined(self, first: list[Any], more: Any) -> Any:
        """A list and what is chosen to follow it."""
        ...
