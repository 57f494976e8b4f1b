"""The maps that a filter asks: addresses, sockets, conversations."""

from __future__ import annotations

import os

from faultline.kernel import bpf
from faultline.kernel.bpf import Map, MapType
from faultline.kernel.match import ENDS_BYTES, KEY_BYTES, Members, network_key

MAX_NETWORKS, MAX_FLOWS = 65536, 16384
ENDS = "fl_ends"  # sockets that were there before
FLOWS = "fl_flows"  # conversations that a filter for outgoing packets has learned


def trie(name: str, networks: tuple[str, ...]) -> Map:
    """Networks by their longest prefix."""
    flags = bpf.F_NO_PREALLOC
    made = Map.create(MapType.LPM_TRIE, KEY_BYTES, 1, MAX_NETWORKS, name=name, flags=flags)
    try:
        for network in networks:
            made.update(network_key(network), b"\1")
    except OSError:
        made.close()
        raise
    return made


def of_members(members: Members) -> dict[str, Map]:
    """The conversations, own or shared, and the sockets that were there before."""
    if members.flows >= 0:
        found = {FLOWS: Map(os.dup(members.flows), ENDS_BYTES, 1)}
    else:
        found = {FLOWS: Map.create(MapType.LRU_HASH, ENDS_BYTES, 1, MAX_FLOWS, name=FLOWS)}
    if not members.ends:
        return found
    try:
        found[ENDS] = Map.create(MapType.HASH, ENDS_BYTES, 1, len(members.ends), name=ENDS)
        for end in members.ends:
            found[ENDS].update(end.key(), b"\1")
    except OSError:
        for opened in found.values():
            opened.close()
        raise
    return found
