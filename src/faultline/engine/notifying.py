"""Sends notices: a signed webhook, an alert, or anything that Apprise can reach."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

from faultline.api.notify import AlertmanagerNotice, NotifySpec, WebhookNotice
from faultline.api.run import Run
from faultline.api.secret import SecretRef
from faultline.engine.draft import Draft
from faultline.engine.model import Now
from faultline.engine.verdict import foreseen
from faultline.errors import ObserveFailed, Unsupported

PATIENCE = 10.0
"""Seconds that sending one notice may take."""


def send(run: Run, action: str, now: Now) -> None:
    """Send the notice of an action `notify/INDEX/OCCASION/NODE`; raises ObserveFailed,
    Unsupported.
    """
    _, index, occasion, node = action.split("/")
    spec: NotifySpec = run.spec.resolved.notify[int(index)]
    told = notice(run, occasion, node, now)
    if spec.webhook is not None:
        _webhook(spec.webhook, told)
    elif spec.alertmanager is not None:
        _alert(spec.alertmanager, told)
    elif spec.apprise is not None:
        _apprise(spec.apprise, told)


def notice(run: Run, occasion: str, node: str, now: Now) -> dict[str, Any]:
    """What is told, as data."""
    verdict, reason = foreseen(Draft(run, now)) if not node else ("", "")
    name = run.metadata.name
    if occasion == "approval":
        asked = next(
            (p.text for p in run.status.timeline if (p.node, p.event) == (node, "approval wanted")),
            "",
        )
        text = f"{name} waits for an answer: faultline approve {name} {node} ({asked})"
    else:
        text = f"{name}: {verdict}: {run.status.aborted or reason}"
    return {
        "event": occasion, "run": name, "experiment": run.spec.experiment, "verdict": str(verdict),
        "reason": reason, "node": node, "text": text, "at": now.at,
    }  # fmt: skip


def _webhook(spec: WebhookNotice, told: dict[str, Any]) -> None:
    body = json.dumps(told).encode()
    headers = {"content-type": "application/json"}
    if spec.secret is not None:
        key = spec.secret.resolve().encode()
        signed = hmac.new(key, body, hashlib.sha256).hexdigest()
        headers["x-faultline-signature"] = f"sha256={signed}"
    _post(spec.url, body, headers, verify=spec.verify)


def _alert(spec: AlertmanagerNotice, told: dict[str, Any]) -> None:
    labels = {
        "alertname": "FaultlineRun", "run": told["run"], "experiment": told["experiment"],
        "event": told["event"], "verdict": told["verdict"], **spec.labels,
    }  # fmt: skip
    alert = {
        "labels": labels,
        "annotations": {"summary": told["text"], "reason": told["reason"]},
        "startsAt": datetime.fromtimestamp(told["at"], UTC).isoformat(),
    }
    url = f"{spec.url.rstrip('/')}/api/v2/alerts"
    _post(url, json.dumps([alert]).encode(), {"content-type": "application/json"})


def _post(url: str, body: bytes, headers: dict[str, str], *, verify: bool = True) -> None:
    from faultline.probes import tls
    from faultline.probes.exchange import Client, exchange
    from faultline.probes.limit import Limit, NoAnswer

    client = Client(trust=tls.Trust(verify=verify))
    try:
        found = exchange(
            url, Limit(PATIENCE), method="POST", headers=headers, body=body, client=client
        )
    except NoAnswer as error:
        raise ObserveFailed(f"the notice did not arrive: {error}") from error
    if not 200 <= found.code < 300:
        raise ObserveFailed(f"the notice was answered by {found.code}")


def _apprise(place: SecretRef, told: dict[str, Any]) -> None:
    try:
        from apprise import Apprise
    except ModuleNotFoundError as error:
        raise Unsupported("Apprise needs an extra", hint="pip install faultline[engine]") from error
    sender: Any = Apprise()
    if not sender.add(place.resolve()):
        raise ObserveFailed(f"the address in {place} is none that Apprise knows")
    if not sender.notify(title=f"Faultline: {told['event']}: {told['run']}", body=told["text"]):
        raise ObserveFailed(f"the notice did not arrive at the address in {place}")
