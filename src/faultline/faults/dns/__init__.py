"""Faults of name resolution: what a program's resolver reads, and what it is answered.

`record` and `server` change the files that a resolver reads. `error`, `random` and `delay` act on
the queries themselves, whichever server is asked, and change no file.
"""

from __future__ import annotations

from faultline.faults.dns.files import DnsRecord, DnsServer
from faultline.faults.dns.packets import DnsDelay, DnsError, DnsRandom

__all__ = ["DnsDelay", "DnsError", "DnsRandom", "DnsRecord", "DnsServer"]
