"""Six faults on one device, made and undone in any order, over what the user has there."""

from __future__ import annotations

import os
import random
import subprocess

import pytest
from lanes import off, order, passes
from netrig import Wire

from faultline.injection.injector import Injector

pytestmark = [pytest.mark.needs_root, pytest.mark.needs_netns, pytest.mark.both_kernels]

ONES: list[tuple[str, dict[str, str]]] = [
    ("loss", {"percent": "30%"}),
    ("loss", {"percent": "10%", "tcp_flags": "syn"}),
    ("loss", {"percent": "5%", "look": "unreachable"}),
    ("duplicate", {"percent": "20%"}),
    ("corrupt", {"percent": "20%"}),
    ("corrupt", {"percent": "20%", "checksum": "fixed"}),
    ("delay", {"latency": "5ms"}),
    ("delay", {"latency": "9ms", "jitter": "3ms", "distribution": "normal"}),
    ("reorder", {"latency": "5ms"}),
    ("limit", {"rate": "20mbit"}),
    ("limit", {"rate": "1gbit"}),
    ("partition", {"destination": "10.77.0.9"}),
    ("partition", {"destination": "fd77::9", "look": "refused"}),
    ("reset", {"destination_port": "7777"}),
]
OWN = {
    "nothing": [],
    "htb": [
        "qdisc add dev v0 root handle 1: htb default 20",
        "class add dev v0 parent 1: classid 1:10 htb rate 5mbit",
        "class add dev v0 parent 1: classid 1:20 htb rate 900mbit",
        "filter add dev v0 parent 1: pref 3 protocol ip u32 match ip dport 77 0xffff classid 1:10",
    ],
    "fq": ["qdisc add dev v0 root handle 5: fq limit 777"],
    "filters": [
        "qdisc add dev v0 clsact",
        "filter add dev v0 egress pref 7 protocol ip u32 match ip dport 7 0xffff classid 1:1",
        "filter add dev v0 ingress pref 9 protocol ip u32 match ip dport 9 0xffff classid 1:1",
    ],
}


def tool(*words: str) -> str:
    return subprocess.run(["tc", *words], check=True, capture_output=True, text=True).stdout


def tree(*, with_clsact: bool = True) -> list[str]:
    """Everything of traffic control on the device, as another program reads it."""
    listed = [tool("-d", what, "show", "dev", "v0") for what in ("qdisc", "class", "filter")]
    if with_clsact:
        listed += [tool("-d", "filter", "show", "dev", "v0", s) for s in ("ingress", "egress")]
        return listed
    listed[0] = "".join(line for line in listed[0].splitlines(True) if "clsact" not in line)
    return listed


@pytest.mark.slow
@pytest.mark.parametrize("own", OWN)
def test_six_come_and_go_in_any_order(wire: Wire, injector: Injector, own: str) -> None:
    for line in OWN[own]:
        if subprocess.run(["tc", *line.split()], check=False, capture_output=True).returncode:
            pytest.skip(f"this kernel has no {own}")
    before, quiet = tree(), tree(with_clsact=False)
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}")
    chance = random.Random(seed)
    for _ in range(2):
        there: list[str] = []
        made = 0
        while made < 6 or there:
            # Some go before the last ones have come.
            if made < 6 and (not there or chance.random() < 0.75):
                fault, params = chance.choice(ONES)
                side = chance.choice(("out", "in", "both"))
                asked = order(fault, interface="v0", direction=side, **params)
                there.append(injector.inject(asked).uid)
                made += 1
            else:
                off(injector, there.pop(chance.randrange(len(there))))
            assert tree(with_clsact=False) == quiet
            for uid in there:
                assert injector.residue(uid), "an undo has taken a part of another fault along"
        assert tree() == before
        assert passes(wire.here, wire.there, wire.there4, 7801)
