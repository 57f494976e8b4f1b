"""Who carries out what: leases with a fencing number, so that several engines share the work.

A lease is taken by locking its row, past the rows that somebody else is just taking. It ends by
the clock of the database, so engines whose clocks differ agree; on one host that is the time since
boot, which no step of the wall clock moves. The number grows with every taking, never otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from faultline.errors import UnknownName
from faultline.kernel import clock
from faultline.stores import summaries
from faultline.stores.database import Database
from faultline.stores.model import Fenced, Filter, Lease

_FREE = "(l.holder IS NULL OR l.epoch <> ? OR l.expires <= ?)"


def add(db: Database, kind: str, name: str) -> None:
    """With the resource itself, in its transaction."""
    db.run("INSERT INTO leases VALUES (?, ?, 0, NULL, NULL, NULL)", kind, name)


def claim(
    db: Database, kind: str, limit: int, holder: str, ttl: float, where: Filter
) -> list[Lease]:
    """Take what is free, within a transaction."""
    until = clock.now() + int(ttl * 1e9)  # before the database's own clock is read
    epoch, now = db.clock()
    matching, values = summaries.condition(kind, replace(where, ended=False))
    rows = db.rows(
        "SELECT s.name, s.uid, l.fence FROM summaries s JOIN leases l"  # noqa: S608 (constants)
        f" ON l.kind = s.kind AND l.name = s.name WHERE {matching} AND {_FREE}"
        f" ORDER BY s.created, s.name LIMIT ?{db.skip_locked}",
        *values, epoch, now, limit,
    )  # fmt: skip
    db.many(
        "UPDATE leases SET holder = ?, fence = fence + 1, epoch = ?, expires = ?"
        " WHERE kind = ? AND name = ?",
        [(holder, epoch, now + ttl, kind, name) for name, _, _ in rows],
    )
    return [Lease(kind, name, uid, holder, fence + 1, until) for name, uid, fence in rows]


def renew(db: Database, leases: Sequence[Lease], ttl: float) -> list[Lease]:
    """Those that nobody else has taken, within a transaction; also when their time had passed."""
    until = clock.now() + int(ttl * 1e9)
    epoch, now = db.clock()
    ordered = sorted(leases, key=lambda lease: (lease.kind, lease.name))  # against deadlocks
    db.many(
        "UPDATE leases SET epoch = ?, expires = ?"
        " WHERE kind = ? AND name = ? AND holder = ? AND fence = ?",
        [
            (epoch, now + ttl, lease.kind, lease.name, lease.holder, lease.fence)
            for lease in ordered
        ],
    )
    held: set[tuple[object, ...]] = set()
    for holder in {lease.holder for lease in leases}:
        held.update(db.rows("SELECT kind, name, fence FROM leases WHERE holder = ?", holder))
    return [
        replace(lease, until_ns=until)
        for lease in leases
        if (lease.kind, lease.name, lease.fence) in held
    ]


def release(db: Database, lease: Lease) -> None:
    db.run(
        "UPDATE leases SET holder = NULL WHERE kind = ? AND name = ? AND fence = ? AND holder = ?",
        lease.kind, lease.name, lease.fence, lease.holder,
    )  # fmt: skip


def check(db: Database, kind: str, name: str, fence: int, lock: str = "") -> None:
    """Raises Fenced if somebody has taken it since it was taken with that number.

    With `lock` within the transaction of a write, nobody takes it between this look and the write.
    """
    rows = db.rows(
        f"SELECT fence, holder FROM leases WHERE kind = ? AND name = ?{lock}",  # noqa: S608
        kind, name,
    )  # fmt: skip
    if not rows:
        raise UnknownName(f"there is no {kind} {name!r}")
    ((now, holder),) = rows
    if fence != now:
        raise Fenced(
            f"{kind} {name!r} was taken over by {holder or 'somebody who let it go'}"
            f" (number {now}, ours was {fence})",
            hint="leave it to them; what was asked for before is in its status",
        )
