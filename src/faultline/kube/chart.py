"""The Helm chart, made from the very functions that make the manifests.

Where a value is chosen there stands the expression that Helm replaces. Whatever else has two
braces, such as an alert for Prometheus, is kept from Helm.
https://helm.sh/docs/chart_template_guide/
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, cast

import yaml
from pydantic.alias_generators import to_camel

from faultline import __version__
from faultline.api.model import Model
from faultline.kube import capabilities, manifests, rbac, webhook
from faultline.kube.manifests import Object
from faultline.kube.settings import PROFILES, Settings

_OPEN, _CLOSE = "\ue000", "\ue001"  # around an expression, until the text is made
_WHOLE: Final = re.compile(rf"(?<=[:-] )'?{_OPEN}([^{_CLOSE}]*){_CLOSE}'?(?=\n|$)")
_PART: Final = re.compile(rf"{_OPEN}([^{_CLOSE}]*){_CLOSE}")
NOTE: Final = "# Made by `faultline kube chart`; change src/faultline/kube, not this file.\n"
KUBE: Final = ">=1.20.0-0"


class Asked:
    """A value of the chart, by its path; what is asked of it is a value below."""

    def __init__(self, expression: str) -> None:
        self._expression = expression

    def __getattr__(self, name: str) -> Asked:
        if name.startswith("_"):
            raise AttributeError(name)
        return Asked(f"{self._expression}.{to_camel(name)}")

    def __str__(self) -> str:
        return f"{_OPEN}{self._expression}{_CLOSE}"

    def __format__(self, _form: str) -> str:
        return str(self)


class Chosen:
    """`settings.Values` that nobody has chosen yet."""

    def __init__(self) -> None:
        self.namespace = Asked(".Release.Namespace")
        self.image = Asked('include "faultline.image" .')
        self.agent, self.operator = Asked(".Values.agent"), Asked(".Values.operator")
        self.pull_policy = Asked(".Values.pullPolicy")
        self.pull_secrets = Asked('include "faultline.pullSecrets" . | fromJsonArray')
        self.faults = Asked('join "," .Values.agent.faults')
        self.agent_security = Asked('include "faultline.agentSecurity" . | fromJson')
        self.operator_more = Asked('(include "faultline.operatorMore" . | fromJsonArray)')

    def joined(self, first: list[Any], more: Any) -> Any:
        words = " ".join(_argument(each) for each in first)
        return Asked(f"concat (list {words}) {more._expression}")  # noqa: SLF001 - one of ours


def _argument(word: str) -> str:
    """A word with values in it, as an argument of a function of templates."""
    values = _PART.findall(word)
    text = json.dumps(_PART.sub("%v", word))
    return f"(printf {text} {' '.join(values)})" if values else text


def _plain(value: Any) -> Any:
    """With text in the place of what is asked."""
    if isinstance(value, Asked):
        return str(value)
    if isinstance(value, dict):
        told = cast("dict[Any, Any]", value)
        return {name: _plain(each) for name, each in told.items()}
    if isinstance(value, list):
        return [_plain(each) for each in cast("list[Any]", value)]
    return value.replace("{{", "{{ `{{` }}") if isinstance(value, str) else value


def template(objects: list[Object], condition: str = "") -> str:
    """A file of templates."""
    text = yaml.safe_dump_all(
        [_plain(each) for each in objects], sort_keys=False, allow_unicode=True, width=10_000
    )
    # A value is JSON, which is YAML too: a list, a number and a text are each what they are.
    text = _WHOLE.sub(r"{{ \1 | toJson }}", text)
    text = _PART.sub(r"{{ \1 }}", text)
    return f"{{{{- if {condition} }}}}\n{text}{{{{- end }}}}\n" if condition else text


# ------------------------------------------------------------------ helpers


def _helpers() -> str:
    settings = Settings()
    full = json.dumps(manifests.security(settings, "full"))
    single = manifests.security(settings, "unprivileged")
    del single["capabilities"]["add"]
    always = " ".join(json.dumps(name) for name in capabilities.ALWAYS)
    hooked = " ".join(json.dumps(word) for word in webhook.ARGUMENTS)
    trusting, opted = json.dumps(manifests.TRUSTING[0]), manifests.OPT_IN[0]
    families = {family: sorted(needed) for family, needed in capabilities.FAMILIES.items()}
    return f"""\
{{{{- /* Made by `faultline kube chart`. */ -}}}}
{{{{- define "faultline.image" -}}}}
{{{{- $between := ternary "@" ":" (hasPrefix "sha256:" .Values.tag) -}}}}
{{{{- $name := ternary .Values.image (printf "%s/%s" .Values.registry .Values.image) \
(eq .Values.registry "") -}}}}
{{{{- printf "%s%s%s" $name $between .Values.tag -}}}}
{{{{- end }}}}

{{{{- define "faultline.pullSecrets" -}}}}
{{{{- $named := list -}}}}
{{{{- range .Values.pullSecrets }}}}{{{{ $named = append $named (dict "name" .) }}}}{{{{ end -}}}}
{{{{- $named | toJson -}}}}
{{{{- end }}}}

{{{{- define "faultline.capabilities" -}}}}
{{{{- $families := `{json.dumps(families)}` | fromJson -}}}}
{{{{- $wanted := list {always} -}}}}
{{{{- range (.Values.agent.faults | default (keys $families)) -}}}}
{{{{- $wanted = concat $wanted (get $families (first (splitList "." .)) | default list) -}}}}
{{{{- end -}}}}
{{{{- $wanted | uniq | sortAlpha | toJson -}}}}
{{{{- end }}}}

{{{{- define "faultline.operatorMore" -}}}}
{{{{- $words := ternary (list {hooked}) (list {trusting}) .Values.webhook.enabled -}}}}
{{{{- if .Values.operator.optIn }}}}{{{{ $words = append $words "{opted}" }}}}{{{{ end -}}}}
{{{{- concat $words .Values.operator.extraArgs | toJson -}}}}
{{{{- end }}}}

{{{{- define "faultline.agentSecurity" -}}}}
{{{{- if eq .Values.profile "full" -}}}}
{full}
{{{{- else -}}}}
{{{{- $made := `{json.dumps(single)}` | fromJson -}}}}
{{{{- $add := include "faultline.capabilities" . | fromJsonArray -}}}}
{{{{- $_ := set $made "capabilities" (dict "drop" (list "ALL") "add" $add) -}}}}
{{{{- $_ := set $made "seccompProfile" (dict "type" .Values.agent.seccomp) -}}}}
{{{{- $_ := set $made "seLinuxOptions" (dict "type" .Values.agent.seLinuxType) -}}}}
{{{{- $made | toJson -}}}}
{{{{- end -}}}}
{{{{- end }}}}
"""


def _objects_rights() -> str:
    """The rights for faults of objects: those of the families that are chosen."""
    made = template(manifests.object_faults(Chosen(), []), ".Values.operator.objectFaults")
    lookup = f"""\
{{{{- $families := `{json.dumps(rbac.OBJECTS)}` | fromJson -}}}}
{{{{- $rules := `{json.dumps(rbac.ACT)}` | fromJsonArray -}}}}
{{{{- range .Values.operator.objectFaults -}}}}
{{{{- $rules = concat $rules (get $families . | default list) -}}}}
{{{{- end }}}}
"""
    return lookup + made.replace("rules: []", "rules: {{ $rules | toJson }}")


def _spaces() -> str:
    """A Role for each namespace in which Runs are carried out, or read Secrets."""
    v, at = Chosen(), Asked("$at")
    everywhere = template(manifests.runs(v))
    text = f'{{{{- if has "{manifests.EVERYWHERE}" .Values.operator.runNamespaces }}}}\n'
    text += f"{everywhere}{{{{- else }}}}\n{_each('runNamespaces', manifests.runs(v, at))}"
    return f"{text}{{{{- end }}}}\n{_each('secretNamespaces', manifests.secrets(v, at))}"


def _each(setting: str, objects: list[Object]) -> str:
    made = template(objects).replace(".Release.Namespace", "$.Release.Namespace")
    return f"{{{{- range $at := .Values.operator.{setting} }}}}\n---\n{made}{{{{- end }}}}\n"


def _leaving() -> str:
    """Before Helm takes all away, every fault is undone: who would do it afterwards?"""
    v, name = Chosen(), "faultline-leaving"
    told = manifests.labels("leaving")
    rules = [
        rbac.rule(rbac.HERE, ("faults", "hosts", "halts", "runs", "schedules"),
                  ("get", "list", "watch", "create", "patch", "update", "delete")),
        rbac.rule(rbac.HERE, ("faults/status", "halts/status"), ("patch", "update")),
        rbac.rule("apps", ("deployments",), ("get", "list")),
        rbac.rule("coordination.k8s.io", ("leases",), ("get", "list")),
    ]  # fmt: skip
    account: Object = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": {"name": name, "namespace": v.namespace, "labels": told},
    }
    container: Object = {
        "name": "leaving",
        "image": v.image,
        "imagePullPolicy": v.pull_policy,
        "args": ["kube", "uninstall", "--only-faults", "--yes", f"--namespace={v.namespace}"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]},
                            "runAsNonRoot": True, "runAsUser": manifests.USER},
    }  # fmt: skip
    pod: Object = {
        "serviceAccountName": name,
        "restartPolicy": "Never",
        "imagePullSecrets": v.pull_secrets,
        "containers": [container],
    }
    job: Object = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": v.namespace, "labels": told},
        "spec": {"backoffLimit": 2, "activeDeadlineSeconds": 300,
                 "template": {"metadata": {"labels": told}, "spec": pod}},
    }  # fmt: skip
    made = [account, rbac.role(name, rules, told), rbac.binding(name, name, v.namespace, told), job]
    for each in made:
        each["metadata"]["annotations"] = {
            "helm.sh/hook": "pre-delete",
            "helm.sh/hook-weight": "0" if each is job else "-5",
            "helm.sh/hook-delete-policy": "before-hook-creation,hook-succeeded",
        }
    return template(made)


# ------------------------------------------------------------------ values


def _values() -> str:
    """The values with what they mean, as the models say it."""
    lines = [NOTE, "# One value is enough behind an air gap: registry.\n"]
    return "".join(lines) + _section(Settings, Settings().to_json(), "")


def _section(model: type[Model], values: Object, indent: str) -> str:
    text = ""
    for name, field in model.explained().items():
        key = to_camel(name)
        help_text = " ".join((field.description or "").split())
        text += "\n" + "".join(f"{indent}# {line}\n" for line in _wrapped(help_text, indent))
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, Model):
            text += f"{indent}{key}:\n{_section(inner, values[key], indent + '  ')}"
        else:
            text += f"{indent}{key}: {json.dumps(values[key])}\n"
    return text


def _wrapped(text: str, indent: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 98 - len(indent))


def _schema() -> str:
    made = Settings.model_json_schema(by_alias=True)
    made["$schema"] = "http://json-schema.org/draft-07/schema#"
    made["title"] = "Values of the Faultline chart"
    # Helm adds this to the values of every chart.
    made["properties"]["global"] = {"type": "object"}
    # The reader of schemas in Helm is of 2019: what it calls definitions has another name since.
    text = json.dumps(made, indent=2).replace('"#/$defs/', '"#/definitions/')
    return text.replace('"$defs"', '"definitions"') + "\n"


_ABOUT: Final = {
    "apiVersion": "v2",
    "name": "faultline",
    "description": "Chaos engineering that proves each fault took effect and proves that it is "
    "gone",
    "type": "application",
    "version": __version__,
    "appVersion": __version__,
    "kubeVersion": KUBE,
    "keywords": ["chaos engineering", "fault injection", "resilience"],
}

_NOTES: Final = """\
Faultline {{ .Chart.AppVersion }} runs in the namespace {{ .Release.Namespace }} \
(profile {{ .Values.profile }}).

See that it is ready:

  kubectl -n {{ .Release.Namespace }} rollout status deployment/faultline-operator
{{- if ne .Values.profile "api-only" }}
  kubectl get hosts                  # one for each node, a few seconds after its agent began
{{- end }}

Try a fault:

  kubectl explain fault.spec
  kubectl apply -f FAULT.yaml && kubectl get faults -A -w

Stop everything, everywhere:

  kubectl apply -f - <<'END'
  {apiVersion: faultline.dev/v1alpha1, kind: Halt, metadata: {name: stop}, spec: {reason: enough}}
  END

`helm uninstall` undoes every fault first. It leaves the definitions of the kinds, as Helm does:

  kubectl delete crd -l app.kubernetes.io/part-of=faultline
"""


def files() -> dict[str, str]:
    """Every file of the chart, by its path in it."""
    v = Chosen()
    agents = 'ne .Values.profile "api-only"'
    account = [*manifests.agent_account(v)]
    made = {
        "Chart.yaml": NOTE + yaml.safe_dump(_ABOUT, sort_keys=False),
        "values.yaml": _values(),
        "values.schema.json": _schema(),
        "templates/_helpers.tpl": _helpers(),
        "templates/NOTES.txt": _NOTES,
        "templates/quota.yaml": template(manifests.quota(v)),
        "templates/operator-account.yaml": template(manifests.operator_account(v)),
        "templates/operator-objects.yaml": _objects_rights(),
        "templates/operator-namespaces.yaml": _spaces(),
        "templates/operator.yaml": template(
            [*manifests.operator(v), *manifests.metrics_service(v)]
        ),
        "templates/agent-account.yaml": template(account, agents),
        "templates/agent.yaml": template(manifests.agent(v), agents),
        "templates/leaving.yaml": _leaving(),
    }
    for wanted, objects in manifests.monitored(v).items():
        condition = f".Values.monitoring.{to_camel(wanted)}"
        name = wanted.replace("_", "-")
        made[f"templates/monitoring-{name}.yaml"] = template(objects, condition)
    hook = ".Values.webhook.enabled"
    made["templates/webhook.yaml"] = template(manifests.hook(v), hook)
    tried = f"and {hook} .Values.operator.dryRuns"
    made["templates/webhook-dry-runs.yaml"] = template(manifests.dry_runs(v), tried)
    for each in manifests.definitions():
        name = str(each["spec"]["names"]["singular"])
        made[f"crds/{name}.yaml"] = json.dumps(each, ensure_ascii=False) + "\n"
    return made


assert set(PROFILES) == {"full", "unprivileged", "api-only"}  # what the templates compare with
