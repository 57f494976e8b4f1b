"""The tests marked `both_kernels`, once more under another Linux kernel.

All of those that this kernel could not run, and of the others a part that changes from run to run;
all of them with --full.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from faultline.testing.sampling import SEED

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 2700  # seconds
FEW = 20  # failures that are tried once more
AT_ONCE = 2  # kernels that run side by side, as many as this project's machines have cores
SHARE = 12  # of the tests that ran here, each how many-th runs there as well

pytestmark = [pytest.mark.needs_second_kernel, pytest.mark.timeout(LIMIT + 60)]


def _run_there(config: pytest.Config, report: Path, *tests: str) -> subprocess.Popen[str]:
    """Start the marked tests, or these, in a kernel of their own; the report says how they went."""
    command = [
        os.environ["FAULTLINE_SECOND_KERNEL"],
        *("--timeout", str(LIMIT), "--"),
        *("env", "-u", "FAULTLINE_SECOND_KERNEL"),
        *(sys.executable, "-m", "pytest", "-q", "-m", "both_kernels", "-p", "no:cacheprovider"),
        *("-o", "junit_family=xunit1", f"--junit-xml={report.relative_to(ROOT)}"),
        *(["--full"] if config.getoption("--full") else []),
        *(["--no-residue"] if config.getoption("--no-residue") else []),
        *tests,
    ]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def _parts(
    config: pytest.Config, scratch: Path, skipped: list[str]
) -> dict[Path, subprocess.Popen[str]]:
    """Start the parts of this run, each with its share of what this kernel has skipped."""
    parts = AT_ONCE * (1 if config.getoption("--full") else SHARE)
    runs: dict[Path, subprocess.Popen[str]] = {}
    for number in range(AT_ONCE):
        part = (number * parts // AT_ONCE + SEED) % parts
        also = scratch / f"{number}.txt"
        also.write_text("".join(f"{test}\n" for test in skipped[number::AT_ONCE]))
        report = scratch / f"{number}.xml"
        options = (f"--part={part}/{parts}", f"--also={also.relative_to(ROOT)}")
        runs[report] = _run_there(config, report, *options)
    return runs


def _finished(runs: dict[Path, subprocess.Popen[str]]) -> dict[str, tuple[str, str]]:
    """Wait for these runs; the outcomes of all of them."""
    found: dict[str, tuple[str, str]] = {}
    for report, run in runs.items():
        said, _ = run.communicate(timeout=LIMIT + 30)
        assert report.exists(), f"no report came back (status {run.returncode}):\n{said[-4000:]}"
        found |= _outcomes(report)
        report.unlink()
    return found


def _outcomes(report: Path) -> dict[str, tuple[str, str]]:
    """Each test of the report as 'file::name': (passed | failed | skipped, why)."""
    found: dict[str, tuple[str, str]] = {}
    for case in ET.parse(report).iter("testcase"):
        owner = case.get("classname", "").rpartition(".")[2]
        parts = [
            case.get("file", ""),
            *([owner] if owner[:4] == "Test" else []),
            case.get("name", ""),
        ]
        outcome = ("passed", "")
        for tag in ("skipped", "error", "failure"):
            for said in case.iter(tag):
                text = f"{said.get('message', '')}\n{said.text or ''}"
                outcome = ("skipped" if tag == "skipped" else "failed", text)
        found["::".join(parts)] = outcome
    return found


def test_everything_that_either_kernel_can_run_passes_in_it(
    request: pytest.FixtureRequest, subtests: pytest.Subtests, skipped_here: dict[str, str]
) -> None:
    folder = ROOT / "build"
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="second-kernel-") as scratch:
        outcomes = _finished(_parts(request.config, Path(scratch), sorted(skipped_here)))
        failed = [test for test, (outcome, _) in outcomes.items() if outcome == "failed"]
        if 0 < len(failed) <= FEW:
            # On a busy machine: once more, by themselves, and named.
            report = Path(scratch) / "again.xml"
            again = _finished({report: _run_there(request.config, report, *failed)})
            outcomes |= again
            mended = [test for test in failed if again.get(test, ("failed", ""))[0] == "passed"]
            print("passed in the second kernel at the second try:", *mended, sep="\n  ")
    if not outcomes:
        pytest.skip("no test is marked both_kernels yet")
    for test, (outcome, why) in outcomes.items():
        with subtests.test(msg=test):
            if outcome == "failed":
                pytest.fail(f"in the second kernel: {why}", pytrace=False)
            if outcome == "skipped" and test in skipped_here:
                pytest.fail(
                    f"runs in neither kernel: here {skipped_here[test]}; there {why}", pytrace=False
                )
            if outcome == "skipped":
                pytest.skip(f"in the second kernel: {why.strip().splitlines()[0]}")
