"""The traffic of runs in a cluster: sent by processes beside the operator, or by Jobs."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress

from faultline.api.run import Run
from faultline.api.traffic import TrafficSpec
from faultline.errors import Bug, Unsupported
from faultline.kubeapi.client import Client
from faultline.kubeapi.model import ApiError, Rest
from faultline.traffic.jobs import JobWorker, Place, clear
from faultline.traffic.load import load_of
from faultline.traffic.model import Load
from faultline.traffic.run import TrafficRun, Traffics
from faultline.traffic.running import Running


class ClusterTraffics(Traffics):
    """The loads of one run."""

    def __init__(self, reach: Callable[[], Rest], image: str) -> None:
        super().__init__()
        self._reach, self._image = reach, image
        self._places: dict[str, Place] = {}
        self.run: Run | None = None
        """Whose they are; to be set before the first is started."""

    def made(self, spec: TrafficSpec, seed: int | None) -> Running:
        if spec.job is None:
            return super().made(spec, seed)
        place = self._place(spec)
        clear(place)  # of an engine before this one
        count = iter(range(1000))
        token = secrets.token_hex(3)

        def begin(load: Load) -> JobWorker:
            return JobWorker(place, f"{place.label[:50]}-{token}-{next(count)}", load)

        load = load_of(spec)  # pyright: ignore[reportArgumentType] (`bounds` lets no others pass)
        return TrafficRun(spec, workers=spec.job.replicas, seed=seed, load=load, begin=begin)  # pyright: ignore[reportArgumentType]

    def _place(self, spec: TrafficSpec) -> Place:
        if self.run is None or spec.job is None:
            raise Bug(f"traffic {spec.name} belongs to no run")
        image = spec.job.image or self._image
        if not image:
            raise Unsupported(
                f"traffic {spec.name}: which image is not known", hint="job: {image: NAME}"
            )
        meta = self.run.metadata
        owner = {"apiVersion": self.run.api_version, "kind": "Run", "name": meta.name,
                 "uid": meta.uid}  # fmt: skip
        client = Client(self._reach())
        label = f"{meta.uid[:12]}-{spec.name}"
        made = Place(client, client.rest.namespace, spec.job, image, spec.name, label, owner)
        self._places[spec.name] = made
        return made

    def close(self) -> None:
        super().close()
        while self._places:
            place = self._places.popitem()[1]
            with suppress(ApiError):  # they end by themselves, and with their run
                clear(place)
            place.client.close()
