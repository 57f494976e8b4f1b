"""What the kernel counted of a network namespace: /proc/net/snmp and snmp6 (proc_pid_net(5))."""

from __future__ import annotations

from pathlib import Path

_FOLDER = Path("/proc/thread-self/net")


def protocols() -> dict[str, int]:
    """All counters of the calling thread's network namespace, by names such as `Udp.NoPorts`.

    IPv6 counts for itself, in names such as `Udp6NoPorts`; TCP counts both families together.
    """
    lines = (_FOLDER / "snmp").read_text(encoding="ascii").splitlines()
    found: dict[str, int] = {}
    for heads, values in zip(lines[::2], lines[1::2], strict=True):
        protocol, *names = heads.split()
        numbers = values.split()[1:]
        found |= {f"{protocol[:-1]}.{n}": int(v) for n, v in zip(names, numbers, strict=True)}
    six = _FOLDER / "snmp6"
    if six.exists():  # not in a kernel without IPv6
        words = (line.split() for line in six.read_text(encoding="ascii").splitlines())
        found |= {name: int(value) for name, value in words}
    return found


def datagrams_received(counted: dict[str, int]) -> int:
    """Datagrams of both families that arrived, also those that nobody wanted or had room for."""
    ends = ("InDatagrams", "NoPorts", "InErrors")
    return sum(counted.get(f"{prefix}{end}", 0) for prefix in ("Udp.", "Udp6") for end in ends)
