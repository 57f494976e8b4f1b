"""Faultline: chaos engineering that proves each fault took effect and proves that it is gone.

`with faultline.fault("network.delay", latency="100ms", interface="lo") as delay:` puts a fault in
place for the length of a block, and `@faultline.fault(...)` for the length of a call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from faultline.injection.session import FaultSession

__version__ = "0.1.0"
__all__ = ["__version__", "fault"]


def fault(
    fault_id: str,
    /,
    *,
    fault_duration: str = "10m",
    fault_uid: str = "",
    fault_allow: tuple[str, ...] = (),
    fault_target: dict[str, Any] | None = None,
    must_be_effective: bool = True,
    **params: Any,
) -> FaultSession:
    """A fault as a context manager and decorator: injected and measured on entry, undone on exit.

    `fault_target` says where, as in documents: {"container": "web"}; without it on this host.
    It is undone as well when this process dies, and at the latest after `fault_duration`. With
    `must_be_effective` an effect that could not be measured raises NotEffective, after undoing.
    """
    from faultline.injection.plan import Order
    from faultline.injection.session import FaultSession
    from faultline.places.find import Target
    from faultline.units import Duration

    duration = Duration.parse(fault_duration, "fault_duration")
    target = Target(**(fault_target or {}))
    order = Order(fault_id, params, duration, fault_uid, frozenset(fault_allow), "python", target)
    return FaultSession(order, must_be_effective)
