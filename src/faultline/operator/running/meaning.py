"""What a fault of a run would act on now, before anything is made of it."""

from __future__ import annotations

from faultline.api.targets import AimedFaultSpec
from faultline.errors import ObserveFailed
from faultline.operator import resolving
from faultline.operator.caches import Caches
from faultline.operator.model import FaultView


def means(caches: Caches, spec: AimedFaultSpec, namespace: str, name: str, seed: str) -> str:
    """In words; raises what the Fault would be refused for, and ObserveFailed if the cluster cannot
    be read. For any thread.
    """
    view = FaultView(namespace, name, "", spec=spec)
    cluster, unready = caches.cluster(view, caches.views())
    if cluster is None or unready:
        raise ObserveFailed(unready or f"{name}: nothing is known of the cluster yet")
    return resolving.resolve(spec, namespace, seed, cluster, name).text
