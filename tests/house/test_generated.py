"""The generated pages are what the generator makes now."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_generated_page_is_current(generate: ModuleType) -> None:
    stale = [
        str(path.relative_to(ROOT))
        for path, text in generate.pages().items()
        if not path.exists() or path.read_text() != text
    ]
    assert stale == [], "run: .venv/bin/python docs/generate.py"


def test_no_page_of_the_reference_is_left_over(generate: ModuleType) -> None:
    assert set(generate.REFERENCE.rglob("*.md")) <= set(generate.pages())


def test_every_example_is_accepted_and_survives_json(generate: ModuleType) -> None:
    for fault_id, fault in generate.registry.everything().items():
        model = fault.params_type()
        params = model.read(generate.filled(fault_id), fault_id)
        assert model.read(params.model_dump(mode="json"), fault_id) == params


def test_every_exit_code_has_a_meaning(generate: ModuleType) -> None:
    meanings = generate.exit_codes()
    assert {error.exit_code for error in generate.all_errors()} <= set(meanings)
    assert all(meanings.values())


def test_every_link_between_pages_leads_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []


def test_the_lock_file_knows_every_dependency_and_no_private_index() -> None:
    text = (ROOT / "uv.lock").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    locked = next(p for p in tomllib.loads(text)["package"] if p["name"] == "faultline")
    told = locked["metadata"]["requires-dist"] + locked["metadata"]["requires-dev"]["dev"]
    wanted = [
        *project["project"]["dependencies"],
        *(each for extra in project["project"]["optional-dependencies"].values() for each in extra),
        *project["dependency-groups"]["dev"],
    ]
    others = {
        each.split("[")[0] + each.partition("]")[2] if "[" in each else each for each in wanted
    }
    found = {each["name"] + each.get("specifier", "") for each in told}
    assert found - {"faultline"} == others - {"faultline"}, "run: uv lock"
    hosts = set(re.findall(r"https://([^/\"]+)", text))
    assert hosts == {"pypi.org", "files.pythonhosted.org"}
