"""Faults of workloads: how many copies, of which image, and whether a roll-out goes on."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from pydantic import Field as Bounds
from pydantic import model_validator

from faultline.api.params import Params
from faultline.api.quantities import Between, Duration, Percent, text
from faultline.errors import Refused
from faultline.injection.reading import Effect, Reading
from faultline.kubeapi.model import Object
from faultline.kubefaults.change import Change
from faultline.kubefaults.fields import Field, read
from faultline.kubefaults.model import FieldsFault, View, field_of, level, words

SCALED = ("Deployment", "StatefulSet", "ReplicaSet", "ReplicationController")
TEMPLATED = (*SCALED, "DaemonSet")
MOST = 1000  # copies


class ScaleParams(Params):
    """Parameters of `workload scale`."""

    replicas: Annotated[int, Between(0, MOST)] | None = None
    """How many copies there are to be."""
    by: Annotated[int, Between(-MOST, MOST)] | None = None
    """How many more, or with a minus fewer, than there are."""
    percent: Percent | None = None
    """What share of them stays, rounded down: `50%`."""

    @model_validator(mode="after")
    def _one(self) -> ScaleParams:
        if [self.replicas, self.by, self.percent].count(None) != 2:
            raise ValueError("expected exactly one of replicas, by and percent")
        return self

    def wanted(self, present: int) -> int:
        """How many, if there are so many now."""
        if self.replicas is not None:
            return self.replicas
        if self.by is not None:
            return min(MOST, max(0, present + self.by))
        return math.floor(present * (self.percent.ratio if self.percent else 0.0))


class WorkloadScale(FieldsFault[ScaleParams]):
    """Change how many copies of a workload there are.

    An autoscaler that owns the number sets it back within seconds; that is seen and said.
    """

    id = "workload.scale"
    kinds = SCALED
    does = "Writes spec.replicas of the workload."
    cannot = "Keep an autoscaler from setting it back: change its bounds instead (`hpa bounds`)."
    measures = "How many copies the controller has counted in status.replicas."
    restores = "The number that it had, unless somebody has changed it since."
    example: ClassVar = {"percent": "50%"}

    def fields(self, view: View, target: Object, params: ScaleParams) -> list[Field]:
        present = read(target, ("spec", "replicas"))
        count = 1 if present is None else int(present)
        return [Field(("spec", "replicas"), present, params.wanted(count))]

    def observe(
        self, view: View, target: Object, params: ScaleParams, changes: Sequence[Change]
    ) -> Reading:
        (change,) = changes
        wanted = int(change.fields[0].after)
        method = "status.replicas, which the controller counts"

        def count() -> int:
            now = view.now(change) or {}
            return int(read(now, ("status", "replicas")) or 0)

        view.until(lambda: count() == wanted)
        reason = "the controller, a quota or an autoscaler has it otherwise"
        return level(f"{wanted} copies", wanted, count(), method, reason)


class RandomParams(Params):
    """Parameters of `workload random`."""

    low: Annotated[int, Between(0, MOST)]
    """The fewest copies."""
    high: Annotated[int, Between(0, MOST)]
    """The most."""
    every: Annotated[Duration, Between("1s", "1d")] = text("1m")
    """After how long another number is drawn."""

    @model_validator(mode="after")
    def _ordered(self) -> RandomParams:
        if self.low >= self.high:
            raise ValueError("expected low below high")
        return self


class WorkloadRandom(FieldsFault[RandomParams]):
    """Let the number of copies jump: another one at an interval, drawn within bounds.

    With the same seed (`selector.seed`) it takes the same course.
    """

    id = "workload.random"
    kinds = SCALED
    does = "Writes spec.replicas of the workload, and another number after each interval."
    cannot = "Keep an autoscaler from setting it back in between."
    measures = "How many copies the controller has counted in status.replicas."
    restores = "The number that it had, unless somebody has changed it since."
    example: ClassVar = {"low": "1", "high": "5", "every": "1m"}

    def fields(self, view: View, target: Object, params: RandomParams) -> list[Field]:
        present = read(target, ("spec", "replicas"))
        # It is never what it was already, else nothing would begin.
        others = [n for n in range(params.low, params.high + 1) if n != present]
        return [Field(("spec", "replicas"), present, _drawn(view, 0).choice(others))]

    def every(self, params: RandomParams) -> float:
        return params.every.seconds

    def step(
        self, view: View, params: RandomParams, changes: Sequence[Change], number: int
    ) -> Sequence[Change]:
        count = _drawn(view, number).randint(params.low, params.high)
        return [
            replace(each, fields=tuple(Field(f.path, f.before, count) for f in each.fields))
            for each in changes
        ]

    def observe(
        self, view: View, target: Object, params: RandomParams, changes: Sequence[Change]
    ) -> Reading:
        (change,) = changes
        method = "status.replicas, which the controller counts"

        def now(*path: str) -> int:
            return int(read(view.now(change) or {}, path) or 0)

        view.until(lambda: now("status", "replicas") == now("spec", "replicas"))
        wanted, found = now("spec", "replicas"), now("status", "replicas")
        if not params.low <= wanted <= params.high:
            asked, reason = f"{params.low} to {params.high} copies", "somebody has set it otherwise"
            return Reading(Effect.INEFFECTIVE, asked, f"{wanted}", method, reason)
        reason = "the controller, a quota or an autoscaler has it otherwise"
        return level(f"{wanted} copies", wanted, found, method, reason)


def _drawn(view: View, number: int) -> random.Random:
    """What step of that number draws from."""
    return random.Random(f"{view.seed or view.fault}/copies/{number}")


class ImageParams(Params):
    """Parameters of `workload image`."""

    container: Annotated[str, Bounds(max_length=63)] = ""
    """Which container; without it all of them."""
    image: Annotated[str, Bounds(min_length=1, max_length=500)] = "faultline.invalid/none:none"
    """The image that they get; by default one that can be pulled from nowhere."""


class WorkloadImage(FieldsFault[ImageParams]):
    """Roll out another image, by default one that cannot be pulled.

    A roll-out keeps the old copies until new ones are ready, as far as its strategy says: what is
    tried is whether a bad release hurts anybody.
    """

    id = "workload.image"
    kinds = TEMPLATED
    does = "Writes the image of the containers in the template, which starts a roll-out."
    cannot = "Harm copies that the strategy of the roll-out keeps."
    measures = "Whether the template has the image, and the controller has seen this generation."
    restores = "The images that they had, which is another roll-out."

    def fields(self, view: View, target: Object, params: ImageParams) -> list[Field]:
        path = ("spec", "template", "spec", "containers")
        return images(target, path, params.container, params.image)

    def observe(
        self, view: View, target: Object, params: ImageParams, changes: Sequence[Change]
    ) -> Reading:
        return _rolled_out(view, changes, f"image {params.image}")


def _rolled_out(view: View, changes: Sequence[Change], asked: str) -> Reading:
    """Whether the controller has looked at the template as it is now."""
    (change,) = changes
    method = "the generation that the controller has observed"

    def seen() -> bool:
        now = view.now(change) or {}
        generation = read(now, ("metadata", "generation")) or 0
        return int(read(now, ("status", "observedGeneration")) or 0) >= int(generation)

    if not view.until(seen):
        return Reading.unmeasured(asked, method, "no controller has looked at it")
    now = view.now(change)
    if now is None or any(each.now(now) != each.after for each in change.fields):
        return Reading(Effect.INEFFECTIVE, asked, "something else", method, "it was set back")
    return Reading(Effect.EFFECTIVE, asked, "the roll-out has begun", method)


def images(target: Object, path: tuple[str, ...], container: str, image: str) -> list[Field]:
    """The image of the named container, or of all, as fields; raises Refused if there is none."""
    entries: Any = read(target, path) or []
    names = [str(each["name"]) for each in entries]
    if container and container not in names:
        raise Refused(f"{words(target)} has no container {container}: it has {', '.join(names)}")
    wanted = [container] if container else names
    return [field_of(target, (*path, f"name={name}", "image"), image) for name in wanted]


class UnreadyParams(Params):
    """Parameters of `workload unready`."""

    container: Annotated[str, Bounds(max_length=63)] = ""
    """Which container; without it all of them."""


class WorkloadUnready(FieldsFault[UnreadyParams]):
    """Roll out copies that run and never become ready, by a readiness probe that always fails.

    The probe of a pod that runs cannot be changed; those of new copies can.
    """

    id = "workload.unready"
    kinds = TEMPLATED
    does = "Writes the readinessProbe of the containers in the template, which starts a roll-out."
    cannot = "Harm copies that the strategy of the roll-out keeps."
    measures = "Whether the template has the probe, and the controller has seen this generation."
    restores = "The probes that they had, which is another roll-out."

    def fields(self, view: View, target: Object, params: UnreadyParams) -> list[Field]:
        path = ("spec", "template", "spec", "containers")
        found: list[Field] = []
        for each in images(target, path, params.container, ""):
            above = each.path[:-1]
            present: Any = read(target, (*above, "readinessProbe"))
            fails = {"exec": {"command": ["/faultline-none"]}, "periodSeconds": 5}
            # What the server adds to a probe is added here, so that it is found as it was written.
            made = {**fails, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3}
            found.append(Field((*above, "readinessProbe"), present, made))
        return found

    def observe(
        self, view: View, target: Object, params: UnreadyParams, changes: Sequence[Change]
    ) -> Reading:
        return _rolled_out(view, changes, "new copies are never ready")


class PauseParams(Params):
    """Parameters of `workload pause`: none."""


class WorkloadPause(FieldsFault[PauseParams]):
    """Pause the roll-outs of a Deployment: releases are accepted, and nothing happens."""

    id = "workload.pause"
    kinds = ("Deployment",)
    does = "Writes spec.paused."
    cannot = "Stop a Deployment from being scaled, or from replacing copies that die."
    measures = "Whether the field is still set."
    restores = "The field as it was."

    def fields(self, view: View, target: Object, params: PauseParams) -> list[Field]:
        return [field_of(target, ("spec", "paused"), True)]
