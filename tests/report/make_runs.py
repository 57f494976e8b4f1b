"""Makes the recorded runs under `data/` from `runs.yaml`: TEST DATA, measured by nobody.

Run it after a change of the resource model: `PYTHONPATH=src python tests/report/make_runs.py`.
The random numbers have a fixed seed, so the same model gives the same files.
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from faultline.api.run import Run

HERE = Path(__file__).parent
START = 1_760_000_000.0
NOTE = "TEST DATA: made by tests/report/make_runs.py, measured by nobody"
STAMPS = (
    "started",
    "injectedAt",
    "effectiveAt",
    "recoveryStarted",
    "recoveredAt",
    "failedAt",
    "discoveredAt",
    "at",
)
ENVIRONMENT = {
    "hostname": "test-data",
    "kernel": "6.12.41 x86_64",
    "distribution": "Debian GNU/Linux 13 (trixie)",
    "python": "3.11.2",
    "faultline": "0.1.0",
    "cpu": "AMD EPYC 7B13",
    "cores": 4,
    "memory": 16 * 2**30,
    "cgroup": "v2",
    "boot_id": "3f5b6a1e-0d6e-4a67-9a3c-6f0f5e2c7a10",
    "user": "root",
}

Row = dict[str, Any]


def stamped(data: Row) -> Row:
    """Seconds from the start become seconds since 1970."""
    return {k: START + v if k in STAMPS and v is not None else v for k, v in data.items()}


class Recorder:
    """Makes one run out of its description."""

    def __init__(self, name: str, wanted: Row) -> None:
        self.name = name
        self.wanted = wanted
        self.length: int = wanted["length"]
        self.random = random.Random(name)
        self.rows = [] if wanted["traffic"].get("none") else self.load()

    def extra(self, second: float) -> float:
        first, last, added = self.wanted.get("extra", [0, -1, 0.0])
        return added if first <= second <= last else 0.0

    def latency(self, second: float) -> float:
        """A plausible time to answer: 3 ms with a tail, and what the fault adds."""
        return round(0.0028 * math.exp(self.random.gauss(0, 0.25)) + self.extra(second), 6)

    def load(self) -> list[Row]:
        """One row per second."""
        errors: Row = self.wanted.get("errors", {})
        lag = self.wanted.get("lag", 0.0006)
        return [self.second(s, self.bad(errors, s), lag) for s in range(1, self.length)]

    def bad(self, errors: Row, second: int) -> int:
        if "from" in errors:
            return errors["all"] if second >= errors["from"] else 0
        return errors.get(second, 0)

    def second(self, at: int, bad: int, lag: float) -> Row:
        sent = 200 if bad == 200 else round(self.random.gauss(200, 1.5))
        row: Row = {"at": float(at), "sent": sent, "ok": sent - bad, "errors": bad}
        p50 = self.latency(at)
        steps = (1.09, 1.14, 1.3) if self.extra(at) else (1.35, 1.8, 2.9)
        p95, p99, worst = (round(p50 * s * self.random.uniform(0.95, 1.1), 6) for s in steps)
        if sent > bad:
            row.update(p50=p50, p90=round(p95 * 0.95, 6), p95=p95, mean=p50)
            row.update(p99=max(p95, p99), max=max(p95, p99, worst))
        return {**row, "lag": round(abs(self.random.gauss(lag, lag / 3)), 6)}

    def samples(self, probe: Row) -> list[Row]:
        """The samples of one probe; `series` says after which pattern."""
        first, last = probe.get("window", [0, -1])
        return getattr(self, f"series_{probe['series']}")(probe, lambda s: first <= s <= last)

    def series_p95(self, probe: Row, _: Any) -> list[Row]:
        out: list[Row] = []
        for row in self.rows:
            for half in (0.0, 0.5):
                value = round(row["p95"] * self.random.uniform(0.97, 1.03), 6)
                out.append({"at": row["at"] + half, "value": value, "ok": value <= probe["limit"]})
        return out

    def series_errors(self, probe: Row, _: Any) -> list[Row]:
        shares = [(row["at"] + 0.9, row["errors"] / row["sent"]) for row in self.rows]
        return [{"at": at, "value": v, "ok": v <= probe["limit"]} for at, v in shares]

    def series_health(self, _: Row, inside: Any) -> list[Row]:
        return [
            {"at": s + 0.3, "ok": False, "text": "connection refused"}
            if inside(s)
            else {"at": s + 0.3, "value": self.latency(s), "ok": True, "text": "200"}
            for s in range(self.length)
        ]

    def series_answer(self, _: Row, inside: Any) -> list[Row]:
        return [{"at": s + 0.5, "ok": not inside(s)} for s in range(self.length)]

    def series_alert(self, _: Row, inside: Any) -> list[Row]:
        fires = [inside(s) for s in range(self.length)]
        return [
            {"at": s + 0.2, "value": float(f), "ok": f, "counted": f} for s, f in enumerate(fires)
        ]

    def series_gone(self, _: Row, inside: Any) -> list[Row]:
        gone = {"value": None, "ok": None, "text": "Prometheus: connection refused"}
        there = {"value": 0.0, "ok": True}
        return [{"at": s + 0.4, **(gone if inside(s) else there)} for s in range(self.length)]

    def probe(self, probe: Row) -> Row:
        samples = self.samples(probe)
        calm = [s["value"] for s in samples if s.get("value") is not None][:8]
        return {
            "name": probe["spec"]["name"],
            "unit": "s",
            "initial": median(calm) if calm else None,
            "roles": probe["roles"],
            "samples": [stamped(s) for s in samples],
            **stamped(probe.get("status", {})),
        }

    def fault(self, fault: Row) -> Row:
        spec = fault["spec"]
        named = {key: spec[key] for key in ("name", "fault", "params")}
        return {**named, "uid": f"{self.name}-{spec['name']}", **stamped(fault["status"])}

    def traffic(self) -> Row:
        wanted = self.wanted["traffic"]
        totals = {key: sum(row[key] for row in self.rows) for key in ("sent", "ok", "errors")}
        totals.update(seconds=float(len(self.rows)), **wanted.get("totals", {}))
        totals["lag"] = max((row["lag"] for row in self.rows), default=0.0)
        rows = [stamped(row) for row in self.rows]
        return {"name": wanted["spec"]["name"], "seconds": rows, "totals": totals}

    def times(self) -> Row:
        """Phases and time points."""
        phases: list[Row] = []
        points: list[Row] = []
        begin = 0.0
        for phase, end in self.wanted["phases"]:
            phases.append({"phase": phase, "started": START + begin, "ended": START + end})
            points.append({"at": begin, "event": phase, "text": f"phase {phase} began"})
            begin = end
        for at, event, node, text in self.wanted.get("events", []):
            points.append({"at": at, "event": event, "node": node, "text": text})
        points.sort(key=lambda p: p["at"])
        timeline = [{**stamped(p), "bootNs": round((p["at"] + 5000) * 1e9)} for p in points]
        return {"phases": phases, "timeline": timeline, "ended": START + begin}

    def spec(self) -> Row:
        probes = self.wanted["probes"]
        with_role = {
            role: [p["spec"]["name"] for p in probes if role in p["roles"]]
            for role in ("hypothesis", "guard", "steady state")
        }
        return {
            "title": self.wanted["title"],
            "description": NOTE,
            "hypothesis": {"text": self.wanted["hypothesis"], "probes": with_role["hypothesis"]},
            "probes": [p["spec"] for p in probes],
            "traffic": [self.wanted["traffic"]["spec"]],
            "faults": [f["spec"] for f in self.wanted["faults"]],
            "steadyState": with_role["steady state"],
            "guards": with_role["guard"],
            "baseline": "8s",
            "cooldown": "6s",
            **self.wanted.get("experiment", {}),
        }

    def document(self) -> Row:
        status = {
            "phase": "ended",
            "started": START,
            **self.times(),
            "faults": [self.fault(f) for f in self.wanted["faults"]],
            "probes": [self.probe(p) for p in self.wanted["probes"]],
            "traffic": [self.traffic()],
            "environment": ENVIRONMENT,
            "engines": {"network": "eBPF and netem on ifb"},
            **stamped(self.wanted["status"]),
        }
        return {
            "apiVersion": "faultline.dev/v1alpha1",
            "kind": "Run",
            "metadata": {
                "name": self.name,
                "uid": f"uid-{self.name}",
                "annotations": {"note": NOTE},
                "creationTimestamp": START,
            },
            "spec": {"experiment": "web-latency", "resolved": self.spec(), "creator": "test"},
            "status": status,
        }


def main() -> None:
    (HERE / "data").mkdir(exist_ok=True)
    described = yaml.safe_load((HERE / "runs.yaml").read_text(encoding="utf-8"))
    for name, wanted in described["runs"].items():
        run = Run.model_validate_json(json.dumps(Recorder(name, wanted).document()))
        text = json.dumps(run.to_json(), indent=1, ensure_ascii=False) + "\n"
        (HERE / "data" / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
