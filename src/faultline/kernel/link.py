"""Network devices: list, make, change, delete, through one given netlink socket.

Message layout: rtnetlink(7), linux/if_link.h.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from faultline.kernel import netlink
from faultline.kernel.netlink import Netlink

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18

IFF_UP, IFF_LOOPBACK, IFF_RUNNING, IFF_NOARP, IFF_PROMISC = 0x1, 0x8, 0x40, 0x80, 0x100

ARPHRD_ETHER, ARPHRD_LOOPBACK = 1, 772

_INFO = struct.Struct("=BxHiII")
_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER = 1, 3, 4, 10
_IFLA_TXQLEN, _IFLA_LINKINFO, _IFLA_IFALIAS, _IFLA_EXT_MASK = 13, 18, 20, 29
_IFLA_AF_SPEC, _IFLA_NUM_TX_QUEUES, _IFLA_NUM_RX_QUEUES = 26, 31, 32
_IFLA_STATS64, _IFLA_NET_NS_FD, _IFLA_GSO_MAX_SEGS, _IFLA_GSO_MAX_SIZE = 23, 28, 40, 41
_INFO_KIND, _INFO_DATA = 1, 2
_VETH_INFO_PEER = 1
_INET_CONF = 1
_INET6_ADDR_GEN_MODE = 8
_AF_INET, _AF_INET6 = 2, 10
_RTEXT_FILTER_SKIP_STATS = 1 << 3
_ADDR_GEN_NONE = 1

# positions in the IPv4 settings of a device (linux/ip.h, counted from 1)
CONF_ACCEPT_LOCAL, CONF_ROUTE_LOCALNET = 23, 26


@dataclass(frozen=True, slots=True)
class Link:
    """One device as the kernel lists it."""

    index: int
    name: str
    flags: int
    type: int
    mtu: int
    kind: str = ""
    alias: str = ""
    address: bytes = b""
    master: int = 0
    gso_max_size: int = 0
    conf4: bytes = b""

    @property
    def up(self) -> bool:
        return bool(self.flags & IFF_UP)

    @property
    def loopback(self) -> bool:
        return bool(self.flags & IFF_LOOPBACK)

    @property
    def header_bytes(self) -> int:
        """Bytes before the network header: 14 on Ethernet and loopback, 0 on tunnels."""
        return 14 if self.type in (ARPHRD_ETHER, ARPHRD_LOOPBACK) else 0

    def setting4(self, position: int) -> int:
        """One IPv4 setting of the device (see CONF_...); 0 where the kernel does not list it."""
        values = struct.unpack(f"={len(self.conf4) // 4}I", self.conf4)
        return values[position - 1] if position <= len(values) else 0


def _header(index: int = 0, flags: int = 0, change: int = 0) -> bytes:
    return _INFO.pack(0, 0, index, flags, change)


def _read(payload: bytes) -> Link:
    _, kind, index, flags, _ = _INFO.unpack_from(payload)
    attrs = netlink.parse(payload[_INFO.size :])
    info = netlink.parse(attrs.get(_IFLA_LINKINFO, b""))
    inet = netlink.parse(netlink.parse(attrs.get(_IFLA_AF_SPEC, b"")).get(_AF_INET, b""))
    return Link(
        index=index,
        name=netlink.as_text(attrs.get(_IFLA_IFNAME)),
        flags=flags,
        type=kind,
        mtu=netlink.as_int(attrs.get(_IFLA_MTU)),
        kind=netlink.as_text(info.get(_INFO_KIND)),
        alias=netlink.as_text(attrs.get(_IFLA_IFALIAS)),
        address=attrs.get(_IFLA_ADDRESS, b""),
        master=netlink.as_int(attrs.get(_IFLA_MASTER)),
        gso_max_size=netlink.as_int(attrs.get(_IFLA_GSO_MAX_SIZE)),
        conf4=inet.get(_INET_CONF, b""),
    )


def links(nl: Netlink) -> list[Link]:
    """Every device of the namespace, by index."""
    body = _header() + netlink.u32(_IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
    found = nl.dump(RTM_GETLINK, body, what="list network devices")
    return sorted((_read(m.payload) for m in found if m.kind == RTM_NEWLINK), key=_index)


def _index(link: Link) -> int:
    return link.index


def get(nl: Netlink, which: str | int) -> Link:
    """One device by name or index. OSError ENODEV when there is none."""
    if isinstance(which, int):
        body = _header(which)
    else:
        body = _header() + netlink.text(_IFLA_IFNAME, which)
    return _read(nl.request(RTM_GETLINK, body, what=f"look at the device {which}")[0].payload)


def find(nl: Netlink, which: str | int) -> Link | None:
    """Like `get`, but None when there is no such device."""
    try:
        return get(nl, which)
    except OSError as problem:
        if problem.errno == errno.ENODEV:
            return None
        raise


def counters(nl: Netlink, index: int) -> dict[str, int]:
    """Packets, bytes, errors and drops of a device both ways (struct rtnl_link_stats64)."""
    message = nl.request(RTM_GETLINK, _header(index), what=f"count at device {index}")[0]
    values = netlink.parse(message.payload[_INFO.size :]).get(_IFLA_STATS64, b"")
    names = ("rx_packets", "tx_packets", "rx_bytes", "tx_bytes",
             "rx_errors", "tx_errors", "rx_dropped", "tx_dropped")  # fmt: skip
    return dict(zip(names, struct.unpack_from("=8Q", values), strict=True))


def _quiet(name: str, alias: str, mtu: int) -> list[bytes]:
    """What every device of ours is made with: a mark and one queue."""
    return [
        netlink.text(_IFLA_IFNAME, name),
        netlink.text(_IFLA_IFALIAS, alias),
        netlink.u32(_IFLA_MTU, mtu),
        netlink.u32(_IFLA_NUM_TX_QUEUES, 1),
        netlink.u32(_IFLA_NUM_RX_QUEUES, 1),
    ]


def add_veth(nl: Netlink, names: tuple[str, str], alias: str, *, mtu: int = 65535) -> None:
    """Make a pair of devices that hold no address and never send anything by themselves.

    Both ends carry `alias`, are down, without ARP and without IPv6 addresses. OSError EEXIST when a
    name is taken.
    """
    here, there = (_quiet(name, alias, mtu) for name in names)
    noarp = _header(0, IFF_NOARP, IFF_NOARP)
    peer = netlink.attribute(_VETH_INFO_PEER | netlink.NLA_F_NESTED, noarp + b"".join(there))
    info = netlink.nested(
        _IFLA_LINKINFO,
        netlink.text(_INFO_KIND, "veth"),
        netlink.nested(_INFO_DATA, peer),
    )
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    body = noarp + b"".join(here) + info
    nl.request(RTM_NEWLINK, body, flags=flags, what=f"make the devices {names[0]}, {names[1]}")
    for name in names:
        if get(nl, name).alias != alias:  # that of a new device is only taken by newer kernels
            set_alias(nl, name, alias)
        set_no_addresses(nl, name)


def add_simple(nl: Netlink, name: str, kind: str, alias: str = "") -> None:
    """Make a device that needs no settings: `ifb`, `bridge`. OSError EEXIST, EOPNOTSUPP."""
    info = netlink.nested(_IFLA_LINKINFO, netlink.text(_INFO_KIND, kind))
    body = _header() + netlink.text(_IFLA_IFNAME, name) + info
    flags = netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
    nl.request(RTM_NEWLINK, body, flags=flags, what=f"make the {kind} device {name}")
    if alias:
        set_alias(nl, name, alias)


def delete(nl: Netlink, which: str | int) -> bool:
    """Delete a device (of a pair both ends); False when it is not there."""
    link = find(nl, which)
    if link is None:
        return False
    try:
        nl.request(RTM_DELLINK, _header(link.index), what=f"delete the device {link.name}")
    except OSError as problem:
        if problem.errno == errno.ENODEV:
            return False
        raise
    return True


def _change(
    nl: Netlink, which: str | int, what: str, *attrs: bytes, up: bool | None = None
) -> None:
    link = get(nl, which)
    flags, change = (0, 0) if up is None else (IFF_UP if up else 0, IFF_UP)
    body = _header(link.index, flags, change) + b"".join(attrs)
    nl.request(RTM_NEWLINK, body, what=f"{what} of the device {link.name}")


def set_up(nl: Netlink, which: str | int, up: bool = True) -> None:
    _change(nl, which, "state", up=up)


def set_arp(nl: Netlink, which: str | int, *, on: bool) -> None:
    """Whether the device resolves addresses on its link."""
    link = get(nl, which)
    body = _header(link.index, 0 if on else IFF_NOARP, IFF_NOARP)
    nl.request(RTM_NEWLINK, body, what=f"ARP of the device {link.name}")


def move(nl: Netlink, which: str | int, namespace: int) -> None:
    """Move a device into the network namespace behind a descriptor."""
    _change(nl, which, "namespace", netlink.u32(_IFLA_NET_NS_FD, namespace))


def set_alias(nl: Netlink, which: str | int, alias: str) -> None:
    _change(nl, which, "alias", netlink.attribute(_IFLA_IFALIAS, alias.encode()))


def set_no_addresses(nl: Netlink, which: str | int) -> None:
    """No IPv6 address, hence no router solicitation either. Only taken after creation."""
    mode = netlink.u8(_INET6_ADDR_GEN_MODE, _ADDR_GEN_NONE)
    family = netlink.nested(_IFLA_AF_SPEC, netlink.nested(_AF_INET6, mode))
    try:
        _change(nl, which, "IPv6 address mode", family)
    except OSError as problem:
        if problem.errno != errno.EAFNOSUPPORT:  # a kernel without IPv6 has nothing to say either
            raise


def set_mtu(nl: Netlink, which: str | int, mtu: int) -> None:
    _change(nl, which, "mtu", netlink.u32(_IFLA_MTU, mtu))


def set_gso_max_size(nl: Netlink, which: str | int, size: int) -> None:
    """The largest packet that the stack may hand over whole (more than 65536 is 'BIG TCP')."""
    _change(nl, which, "gso_max_size", netlink.u32(_IFLA_GSO_MAX_SIZE, size))


def set_gso_max_segments(nl: Netlink, which: str | int, count: int) -> None:
    """How many packets one may stand for; larger ones are taken apart before they reach it."""
    _change(nl, which, "gso_max_segs", netlink.u32(_IFLA_GSO_MAX_SEGS, count))


def set_master(nl: Netlink, which: str | int, master: int) -> None:
    _change(nl, which, "master", netlink.u32(_IFLA_MASTER, master))


def set_setting4(nl: Netlink, which: str | int, settings: dict[int, int]) -> None:
    """Change IPv4 settings of a device (CONF_...) without /proc: works in any namespace."""
    inner = [netlink.u32(position, value) for position, value in settings.items()]
    inet = netlink.nested(_AF_INET, netlink.nested(_INET_CONF, *inner))
    _change(nl, which, "IPv4 settings", netlink.nested(_IFLA_AF_SPEC, inet))


def marked(nl: Netlink, prefix: str) -> Iterator[Link]:
    """Devices whose alias begins with `prefix`."""
    return (link for link in links(nl) if link.alias.startswith(prefix))
