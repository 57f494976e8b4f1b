"""The change that ends TCP connections. It is done once and cannot be taken back."""

from __future__ import annotations

from functools import cache
from typing import ClassVar

from faultline.changes.classifier import match_from, route_socket
from faultline.changes.kind import Context, Data, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.errors import Unsupported
from faultline.kernel import procfs, route, sockdiag
from faultline.kernel.match import Exempt, Match
from faultline.kernel.predicate import Headers, exempted, matches
from faultline.kernel.sockdiag import Connection
from faultline.kernel.tc import Direction


class SocketsEnded(Kind):
    """spec: {matches: {egress: match, ingress: match}, ifindex, exempt, pids: list or None}.

    A connection is meant if a packet of it would be, either way, on its device. With `pids` only
    connections of these processes are.
    """

    name: ClassVar[str] = "sockets_ended"
    instant: ClassVar[bool] = True

    def capture(self, spec: Data, ctx: Context) -> Data:
        with sockdiag.open_socket() as nl:
            if not sockdiag.can_destroy(nl):
                raise Unsupported(
                    "this kernel does not end connections of others (CONFIG_INET_DIAG_DESTROY)",
                    hint="without idle: a connection is reset at its next segment",
                )
        return {}

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        with sockdiag.open_socket() as nl:
            meant = [each for each in sockdiag.connections(nl) if self._meant(each, spec, ctx)]
            return {"ended": sum(sockdiag.destroy(nl, each) for each in meant)}

    def _meant(self, one: Connection, spec: Data, ctx: Context) -> bool:
        if spec["pids"] is not None and one.inode not in _inodes(tuple(spec["pids"])):
            return False
        exempt = tuple(Exempt(**each) for each in spec["exempt"])
        if exempted(exempt, Direction.EGRESS, _leaving(one)):
            return False
        sides = {Direction(side): match_from(data) for side, data in spec["matches"].items()}
        return any(_matches(match, side, one) for side, match in sides.items()) and (
            _device(ctx, one.remote) == spec["ifindex"]
        )

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        return Presence.ABSENT

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        return Outcome(Undone.ABSENT, "a connection that was ended cannot be taken back")

    def describe(self, spec: Data) -> tuple[str, str]:
        return "end the open TCP connections that match", "nothing to undo"

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        return ()


@cache
def _inodes(pids: tuple[int, ...]) -> frozenset[int]:
    """The sockets that these processes hold."""
    targets = {target for pid in pids for target in procfs.descriptors(pid).values()}
    return frozenset(int(target[8:-1]) for target in targets if target.startswith("socket:["))


def _leaving(one: Connection) -> Headers:
    return Headers(6, one.local, one.remote, one.local_port, one.remote_port)


def _matches(match: Match, side: Direction, one: Connection) -> bool:
    if side is Direction.EGRESS:
        return matches(match, _leaving(one))
    return matches(match, Headers(6, one.remote, one.local, one.remote_port, one.local_port))


def _device(ctx: Context, remote: str) -> int:
    try:
        return route.path_to(route_socket(ctx), remote).ifindex
    except OSError:  # there is no way to it any more
        return 0
