"""Which engine carries out a packet fault here: chosen by trying what the kernel offers, or forced.

`ebpf` decides packet by packet and holds none. `netem` is a pair of devices of ours with the
kernel's own queue. `packets` is a tap device served by a worker, where the kernel has no netem or
loads no eBPF.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from faultline.changes.classifier import action_to
from faultline.changes.hop import LONGEST_DRAIN, shape_to
from faultline.changes.model import Change
from faultline.errors import InvalidParameter, Unsupported
from faultline.injection import chance, guards, tried
from faultline.injection.packets import Aim, exempt, follow
from faultline.kernel import features, userns
from faultline.kernel.match import Action, ActionKind
from faultline.kernel.shaping import Netem, Shape, Tbf
from faultline.kernel.tc import Direction

HOLDS = "eBPF decides about packets and cannot hold them"
STALE = 250_000_000  # ns without a heartbeat after which packets pass the packet engine by
LINGER = 2_000_000_000  # ns behind the deadline that a worker without eBPF goes on passing packets


@dataclass(frozen=True, slots=True)
class Form:
    """What is asked of the packets: times in ns, shares from 0 to 1, bit/s, sizes in bytes."""

    words: str
    delay: int = 0
    jitter: int = 0
    correlation: float = 0.0
    distribution: str = "uniform"
    reorder: float = 0.0
    reorder_correlation: float = 0.0
    gap: int = 0
    rate: int = 0
    burst: int = 0
    backlog: int = 0
    peak: int = 0
    min_burst: int = 0
    loss: float = 0.0
    duplicate: float = 0.0
    corrupt: float = 0.0
    checksum: str = "wrong"

    @property
    def longest(self) -> float:
        """Seconds that a packet can be held by the delay alone."""
        spread = self.jitter * (1 if self.distribution == "uniform" else 4)
        return (self.delay + spread) / 1e9


@cache
def _tried() -> features.Features:
    return tried.known()


def try_again() -> None:
    """Try what the kernel offers once more, for whoever wants to know how it is now."""
    tried.anew()
    _tried.cache_clear()


def offered() -> frozenset[str]:
    """What this kernel and these rights offer, as tried in a network namespace of its own."""
    return _tried().present


def obstacles() -> dict[str, str]:
    """Each engine with what keeps it from working here and what to do; empty where it works."""
    found = _tried()

    def lacks(name: str, remedy: str) -> str:
        why = found.missing.get(name, "").rpartition(": ")[2]
        return f"{why}; {remedy}" if why else ""

    as_root = userns.outside(os.geteuid()) == 0
    rights = "root needs CAP_BPF and CAP_NET_ADMIN here" if as_root else "run as root"
    no_bpf = lacks("bpf", rights)
    modules = "install the kernel's extra modules (linux-modules-extra-*, kernel-modules-extra)"
    packets = ""
    if not {"mirred", "u32-mirred"} & found.present:
        packets = lacks("mirred", f"modprobe act_mirred, or {modules}")
    elif "veth" not in found.present and not os.access("/dev/net/tun", os.R_OK | os.W_OK):
        packets = f"neither TAP devices nor veth pairs; modprobe tun or veth, or {rights}"
    return {
        "ebpf": no_bpf,
        "netem": no_bpf or lacks("netem", f"modprobe sch_netem, or {modules}"),
        "packets": packets,
    }


def _choose(engine: str, **unfit: str) -> None:
    """Tell the plan which engine it is, and why it is none of the others."""
    guard = guards.current()
    guard.engine = engine
    stopped = {**obstacles(), **unfit}
    guard.others = {
        name: f"not possible: {why}" if why else f"possible: --engine {name}"
        for name, why in stopped.items()
        if name != engine
    }


def _check_members(aim: Aim) -> None:
    if aim.group and "bpf" not in offered():
        raise Unsupported(
            "the packets of a place that shares the host's network are told by eBPF alone, which "
            f"does not work here: {obstacles()['ebpf']}"
        )


def decided(aim: Aim, action: Action, what: str, engine: str, index: int) -> list[Change]:
    """The changes of a fault that decides packet by packet."""
    _check_members(aim)
    if action.kind is ActionKind.ANSWER:
        _check_answers(aim, engine)
    if engine in ("auto", "ebpf") and "bpf" in offered():
        _choose("ebpf")
        return _filtered(aim, action, what, index)
    if engine == "ebpf":
        raise missing("ebpf")
    share = action.percent / 100
    form = Form(
        what,
        loss=share if action.kind is ActionKind.DROP else 0.0,
        duplicate=share if action.kind is ActionKind.DUPLICATE else 0.0,
        corrupt=share if action.kind is ActionKind.CORRUPT else 0.0,
        correlation=action.correlation / 100,
        checksum="fixed" if action.fix_checksum else "wrong",
    )
    return held(aim, form, engine, index)


def _check_answers(aim: Aim, engine: str) -> None:
    """Only the filter itself answers, and it needs a link to send the answer back over."""
    if not aim.device.header_bytes:
        raise Unsupported(
            f"{aim.device.name} has no Ethernet header (a tunnel): nothing can be answered there",
            hint="let the packets be lost, or name the device below it",
        )
    if engine in ("netem", "packets") or "bpf" not in offered():
        why = obstacles()["ebpf"] or "it is asked for another engine"
        raise Unsupported(f"only eBPF can answer packets, which is not used: {why}")


def _filtered(aim: Aim, action: Action, what: str, index: int) -> list[Change]:
    if action.percent < 100 or action.kind is ActionKind.CORRUPT:
        action = replace(action, seed=chance.seed(f"{aim.device.name} {aim.direction}"))
    spec = aim.spec(action_to(action), what)
    if action.kind is ActionKind.CORRUPT and not action.fix_checksum:
        # Its packets take a way on which checksums are computed in software, so that a wrong one is
        # wrong also where the kernel would have trusted the packet (loopback, veth).
        return [Change("hop", {**spec, "shape": None, "tap_step": None}), *follow(aim, index)]
    return [Change("classifier", spec), *follow(aim, index)]


def held(aim: Aim, form: Form, engine: str, index: int) -> list[Change]:
    """The changes of a fault that holds packets."""
    _check_members(aim)
    have = offered()
    shape = _shape(form, have) if engine in ("auto", "netem") and "bpf" in have else None
    if isinstance(shape, Netem):
        shape = replace(shape, seed=chance.seed(f"{aim.device.name} {aim.direction}"))
    if shape is not None:
        _choose("netem", ebpf=HOLDS)
        spec = aim.spec(redirect(), form.words)
        drain = min(form.longest + 0.05, LONGEST_DRAIN)
        hop = Change("hop", {**spec, "shape": shape_to(shape), "tap_step": None, "drain": drain})
        return [hop, *follow(aim, index)]
    if engine == "netem":
        raise missing("netem")
    if engine == "ebpf":
        raise InvalidParameter("engine", engine, f"auto, netem or packets: {HOLDS}")
    _choose("packets", ebpf=HOLDS)
    return _by_worker(aim, form, have, index)


def missing(engine: str, why: str = "") -> Unsupported:
    """The error that says why an engine does not work here."""
    why = why or obstacles()[engine] or "it cannot be used for this"
    return Unsupported(
        f"engine {engine} does not work here: {why}",
        hint="leave the engine to be chosen, or see what works here: faultline doctor network",
    )


def redirect() -> dict[str, Any]:
    """The action that leads packets to a device that is known only once it is there."""
    return {**action_to(Action(ActionKind.REDIRECT, target=1)), "target": 0}


def _bucket(form: Form) -> Tbf:
    return Tbf(form.rate, form.burst, form.backlog, form.peak, form.min_burst)


def _shape(form: Form, have: frozenset[str]) -> Shape | None:
    """The kernel's own queue for a form, or None where it has none that can do it."""
    if "netem" not in have:
        only_rate = form.rate and form == Form(
            form.words,
            rate=form.rate,
            burst=form.burst,
            backlog=form.backlog,
            peak=form.peak,
            min_burst=form.min_burst,
        )
        return _bucket(form) if only_rate and "tbf" in have else None
    if form.rate and not form.delay and "tbf" in have:
        return _bucket(form)
    return Netem(
        delay=form.delay,
        jitter=form.jitter,
        correlation=form.correlation * 100,
        distribution=form.distribution,
        reorder=form.reorder * 100,
        reorder_correlation=form.reorder_correlation * 100,
        gap=form.gap,
        rate=form.rate,
        loss=form.loss * 100,
        duplicate=form.duplicate * 100,
        corrupt=form.corrupt * 100,
    )


def _by_worker(aim: Aim, form: Form, have: frozenset[str], index: int) -> list[Change]:
    """A worker with a tap, and what leads the packets there."""
    if not aim.device.header_bytes:
        raise Unsupported(
            f"{aim.device.name} has no Ethernet header (a tunnel): its packets cannot be held",
            hint="name the device below it, and match the tunnel's own packets",
        )
    if obstacles()["packets"]:
        raise missing("packets")
    shape = {
        "delay": form.delay,
        "jitter": form.jitter,
        "distribution": form.distribution,
        "delay_correlation": form.correlation if form.delay else 0.0,
        "reorder": form.reorder,
        "reorder_correlation": form.reorder_correlation,
        "gap": form.gap,
        "rate": form.rate,
        "burst": form.burst,
        "backlog": form.backlog,
        "peak": form.peak,
        "min_burst": form.min_burst,
        "loss": form.loss,
        "loss_correlation": form.correlation if form.loss else 0.0,
        "duplicate": form.duplicate,
        "corrupt": form.corrupt,
        "checksum": form.checksum,
    }
    order: dict[str, Any] = {"tap": "@tap", "device": aim.device.name, "shape": shape}
    order["seed"] = chance.seed(f"{aim.device.name} {aim.direction}")
    classified = "bpf" in have
    filtered = {"device": aim.device.name, "direction": str(aim.direction)}
    if classified:
        order["inject"] = "tap"
        order["match"] = None
        order["heartbeat"] = {**filtered, "uid": "@uid", "step": str(index + 1)}
    else:
        order |= {"inject": "packet-socket", "match": _in_worker(aim), "heartbeat": None}
    grace = min(form.longest, LONGEST_DRAIN) + 1.0
    what = f"the packet engine: {form.words}"
    worker = {"module": "packets", "spec": order, "what": what, "grace": grace}
    spec = aim.spec(redirect(), form.words)
    if not classified:
        # The worker passes packets on until the keeper has taken the filter away.
        lingering = Change("worker", {**worker, "linger": LINGER})
        return [lingering, Change("redirect", {**spec, "tap_step": index, "grace": grace})]
    hop = {**spec, "shape": None, "tap_step": index, "heartbeat": STALE, "grace": grace}
    return [Change("worker", worker), Change("hop", hop), *follow(aim, index + 1)]


def _in_worker(aim: Aim) -> dict[str, Any]:
    """The match for a worker that sees every packet of the device."""
    if aim.direction is Direction.INGRESS:
        raise missing("packets", "without eBPF only outgoing packets can be held")
    return {**aim.spec({}, "")["match"], "exempt": exempt()}
