"""DNS queries answered wrongly, late or not at all, whichever server is asked."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import AfterValidator, Field

from faultline.api.params import Params
from faultline.api.quantities import Between, Duration, Flag, Percent, text
from faultline.changes.model import Change, Record
from faultline.faults.dns.files import Addresses, address_list, parts
from faultline.injection import names
from faultline.injection.model import Ending, Fault
from faultline.injection.names import Wish
from faultline.injection.reading import Reading
from faultline.places.model import Place
from faultline.workers.name_packets import NXDOMAIN, REFUSED, SERVFAIL

_CODES = {"servfail": SERVFAIL, "nxdomain": NXDOMAIN, "refused": REFUSED}


def _patterns(value: str) -> str:
    return ",".join(names.patterns(value))


class QueryParams(Params):
    """Which queries are hit."""

    host: Annotated[str, AfterValidator(_patterns), Field(max_length=4096), Flag("d", ("domain",))]
    """The names, separated by commas: `db.example.com`, `*.example.com` for all below it, `*` for
    every one."""
    percent: Annotated[Percent, Between("0.1%", "100%"), Flag("p")] = text("100%")
    """The share of these queries that is hit, at random."""
    server: Annotated[Addresses | None, Flag("s")] = None
    """Only queries to these name servers, by their addresses; any server when not given."""
    interface: Annotated[str | None, Flag("i")] = None
    """Only queries that leave by this device. Without it loopback, the device of the default route
    and those that lead to the name servers given, or to those in /etc/resolv.conf."""
    port: Annotated[int, Between(1, 65535)] = 53
    """The port that queries go to, behind any translation of addresses."""


P = TypeVar("P", bound=QueryParams)


class _QueryFault(Fault[P]):
    """What the faults of queries share."""

    ending = Ending.KERNEL
    does = (
        "Adds clsact to the devices that queries leave by, and an eBPF filter, which compares the "
        "boot clock with its deadline. It redirects packets to port 53 to a tap device served by a "
        "worker, which reads the question; a query that is hit is answered there and goes nowhere, "
        "everything else goes on. When the worker is dead or hung packets pass it by."
    )
    cannot = (
        "See queries over TLS or HTTPS (DoT, DoH), nor names that come from a file or a cache of "
        "the program. A query over TCP is seen if one segment holds it, and its connection must "
        "come about first. A server whose address cannot be found out on the link is not asked at "
        "all. What a cache keeps of an answer (SERVFAIL for seconds) can outlive the fault; "
        "addresses are given with a time to live of 0. Devices without an Ethernet header (tun, "
        "WireGuard) pass. Docker's own resolver is seen where it asks on, not at 127.0.0.11."
    )
    measures = (
        "Queries of our own by each of the devices, caught by the worker; they never leave the "
        "host. Queries of others are counted by the worker."
    )
    restores = (
        "Removes the filters by their mark, then clsact if it was made by us and carries no other "
        "filter; ends the worker, and its taps with it."
    )
    needs = frozenset({"bpf", "net_admin", "clsact", "mirred"})
    scratch = "netns"

    def does_what(self, params: P) -> tuple[dict[str, Any], str]:
        """The order for the worker, and what it is in words."""
        raise NotImplementedError

    def _wish(self, params: P) -> Wish:
        does, words = self.does_what(params)
        share = "" if params.percent == 100 else f", {params.percent} of them"
        return Wish(
            words=f"queries for {params.host}{share} {words}",
            names=parts(params.host),
            does=does,
            share=params.percent.ratio,
            port=params.port,
            servers=parts(params.server or ""),
            interface=params.interface,
        )

    def plan(self, place: Place, params: P) -> list[Change]:
        return names.changes(place, self._wish(params))

    def observe(self, place: Place, params: P, record: Record) -> Reading:
        return names.observe(place, self._wish(params), record)


class ErrorParams(QueryParams):
    """Parameters of `dns error`."""

    mode: Annotated[Literal["servfail", "nxdomain", "refused", "none"], Flag("m")] = "servfail"
    """What is answered: the server failed, there is no such name, the server refuses; none: there
    is no answer at all, and the program waits."""


class DnsError(_QueryFault[ErrorParams]):
    """Let name resolution fail, for some names or for all.

    The program gets the error at once, as from the server that it asked, also where that server
    cannot be reached.
    """

    id = "dns.error"
    example: ClassVar[dict[str, str]] = {"host": "*.example.test", "mode": "nxdomain"}

    def does_what(self, params: ErrorParams) -> tuple[dict[str, Any], str]:
        if params.mode == "none":
            return {"drop": True}, "not answered"
        return {"code": _CODES[params.mode]}, f"answered {params.mode.upper()}"


class RandomParams(QueryParams):
    """Parameters of `dns random`."""

    address: Annotated[
        str | None, AfterValidator(lambda v: v and address_list(v)), Flag("a", ("ip",))
    ] = None
    """The addresses that are answered, separated by commas. Without it a new one each time, from
    ranges that belong to nobody (198.18.0.0/15 and 2001:db8::/32)."""


class DnsRandom(_QueryFault[RandomParams]):
    """Let names lead to a random address, or to the wrong one.

    Queries of other kinds than A and AAAA pass unchanged, but for the hints of HTTPS and SVCB,
    which are answered empty.
    """

    id = "dns.random"
    example: ClassVar[dict[str, str]] = {"host": "db.example.test", "address": "192.0.2.7"}

    def does_what(self, params: RandomParams) -> tuple[dict[str, Any], str]:
        given = [str(ip_address(each)) for each in parts(params.address or "")]
        return {"addresses": given}, f"answered {', '.join(given) or 'a random address'}"


class DelayParams(QueryParams):
    """Parameters of `dns delay`."""

    latency: Annotated[Duration, Between("1ms", "1m"), Flag("l")]
    """How long a query waits before it goes on to the server."""


class DnsDelay(_QueryFault[DelayParams]):
    """Let name resolution take longer: queries wait before they reach the server.

    A program that asks again after a time-out of its own has each of its queries delayed.
    """

    id = "dns.delay"
    example: ClassVar[dict[str, str]] = {"host": "*", "latency": "50ms"}

    def does_what(self, params: DelayParams) -> tuple[dict[str, Any], str]:
        return {"delay": int(params.latency)}, f"delayed by {params.latency}"
