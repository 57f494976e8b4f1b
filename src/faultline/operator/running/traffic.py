"""The traffic of runs in a cluster: sent by processes beside the operator, or by Jobs."""

from __future__ import annotations

from collections.abc import Callable

from faultline.kubeapi.model import Rest
from faultline.traffic.run import Traffics


class ClusterTraffics(Traffics):
    """The loads of one run."""

    def __init__(self, reach: Callable[[], Rest], image: str) -> None:
        super().__init__()
        self._reach, self._image = reach, image
