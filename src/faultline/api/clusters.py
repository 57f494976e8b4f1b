"""Runs in several clusters: which ones, and what each of them says."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from faultline.api.model import Model, Name, StatusModel


class SecretKey(Model):
    """A value of a Secret in the namespace of the run."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
    """The name of the Secret."""
    key: Annotated[str, Field(pattern=r"^[-._a-zA-Z0-9]+$", max_length=253)] = "kubeconfig"
    """The key of the value in it."""


class ClusterRef(Model):
    """One cluster in which a run is carried out, by the operator there."""

    name: Name
    """How it is called in the status of the run."""
    secret: SecretKey
    """The kubeconfig with which it is reached. Everything that it needs must stand in it: it may
    name no file and no program."""
    context: str = ""
    """The context of the kubeconfig; without it the current one."""
    namespace: Annotated[
        str, Field(pattern=r"^([a-z0-9]([a-z0-9-]*[a-z0-9])?)?$", max_length=63)
    ] = ""
    """The namespace there; without it that of the run."""


class ClusterStatus(StatusModel):
    """How far the run has come in one cluster."""

    name: str
    """Which one."""
    run: str = ""
    """The name of the run there; empty until it was made."""
    phase: str = "pending"
    """Where it stands."""
    verdict: str = ""
    """How it ended."""
    reason: str = ""
    """The same in one sentence."""
    faults: int = 0
    """How many faults it has there."""
    effective: int = 0
    """Of how many the effect was measured."""
    open: int = 0
    """How many have begun and not ended."""
    seen: float | None = None
    """When it last answered; this and the next are seconds since 1970."""
    lost: float | None = None
    """Since when it does not answer; its faults end at their deadlines all the same."""
    ended: float | None = None
    """When the run there ended."""
    error: str = ""
    """Why it could not be asked."""
    aborted: str = ""
    """Why the run there was aborted; empty if it was not."""
    aborted_by: str = ""
    """By whom or what."""
    looks: int = 0
    """How often it was looked at."""
    due_ns: int | None = None
    """When it is looked at next, by the clock of the run."""
