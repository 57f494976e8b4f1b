"""Who is told how a run came out, and over what."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from faultline.api.model import Model
from faultline.api.probe_base import Url
from faultline.api.secret import SecretRef

Occasion = Literal[
    "approval", "guard", "aborted", "held", "broke", "not effective", "not measured", "error"
]


class WebhookNotice(Model):
    """A POST of JSON: event, run, experiment, verdict, reason, node, text, at."""

    url: Url
    """Where to."""
    secret: SecretRef | None = None
    """Signs it: the header X-Faultline-Signature is `sha256=` and the HMAC-SHA256 of the body."""
    verify: bool = True
    """Whether the certificate of an https address must be valid."""


class AlertmanagerNotice(Model):
    """An alert `FaultlineRun` with the labels run, experiment, event, verdict."""

    url: Url
    """The address of Alertmanager."""
    labels: dict[str, str] = Field(default_factory=dict[str, str])
    """More labels, for its routes."""


class NotifySpec(Model):
    """Somebody to tell; exactly one of webhook, alertmanager and apprise."""

    webhook: WebhookNotice | None = None
    """A POST of JSON."""
    alertmanager: AlertmanagerNotice | None = None
    """An alert."""
    apprise: SecretRef | None = None
    """Where an address of Apprise lies (mail, chat, pagers: `mailto://...`, `slack://...`): such
    addresses hold secrets. See https://github.com/caronc/apprise/wiki."""
    on: Annotated[list[Occasion], Field(min_length=1)] = Field(
        default_factory=lambda: list[Occasion](
            ["approval", "guard", "aborted", "broke", "not effective", "not measured", "error"]
        )
    )
    """When: a node asks for approval, a guard or a person has ended the run, or its verdict."""

    @model_validator(mode="after")
    def _one(self) -> NotifySpec:
        if [self.webhook, self.alertmanager, self.apprise].count(None) != 2:
            raise ValueError("expected exactly one of webhook, alertmanager and apprise")
        return self
