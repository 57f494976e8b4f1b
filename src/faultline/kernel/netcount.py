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


def parse_devices(text: str) -> dict[str, tuple[int, int]]:
    """Bytes received and sent, of every device in /proc/net/dev (proc_pid_net(5))."""
    found: dict[str, tuple[int, int]] = {}
    for line in text.splitlines()[2:]:
        name, _, rest = line.partition(":")
        values = rest.split()
        found[name.strip()] = (int(values[0]), int(values[8]))
    return found


def parse_retransmits(text: str) -> int:
    """TCP segments that were sent again, in the lines of /proc/net/snmp; -1 if it does not say."""
    heads: list[str] = []
    for line in text.splitlines():
        if line.startswith("Tcp:"):
            words = line.split()
            if "RetransSegs" in heads:
                return int(words[heads.index("RetransSegs")])
            heads = words
    return -1
