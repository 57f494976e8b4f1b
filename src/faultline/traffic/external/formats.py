"""Every format by its name."""

from __future__ import annotations

from typing import get_args

from faultline.api.traffic_external import ExternalTraffic, Format
from faultline.errors import Bug
from faultline.traffic.external.data_tools import Pgbench, RedisBenchmark, Sysbench
from faultline.traffic.external.http_tools import Hey, Wrk
from faultline.traffic.external.lines import JsonLines, RegexLines
from faultline.traffic.external.reader import Reader
from faultline.traffic.external.scenario_tools import K6, Jmeter, Locust

READERS: dict[str, type[Reader]] = {
    "wrk": Wrk,
    "hey": Hey,
    "pgbench": Pgbench,
    "redis-benchmark": RedisBenchmark,
    "sysbench": Sysbench,
    "jmeter": Jmeter,
    "k6": K6,
    "locust": Locust,
    "regex": RegexLines,
    "json-lines": JsonLines,
}

PACKAGES = {
    "wrk": "apt-get install wrk",
    "hey": "apt-get install hey",
    "pgbench": "apt-get install postgresql-contrib",
    "redis-benchmark": "apt-get install redis-tools",
    "sysbench": "apt-get install sysbench",
    "locust": "pip install locust",
}
"""How a program gets onto a Debian host."""


def reader_for(spec: ExternalTraffic, started: float) -> Reader:
    """The reader of the format of a document; `started`: unix time."""
    if set(READERS) != set(get_args(Format)):
        raise Bug("a format without a reader")
    return READERS[spec.format](spec, started)
