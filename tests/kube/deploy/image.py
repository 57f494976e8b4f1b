"""The image of the Containerfile without an engine and without a registry: the same layout, with
the interpreter and the packages of this environment, as an archive that `ctr images import` takes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement

SRC = Path(__file__).resolve().parents[3] / "src"
EXTRAS = ("experiments", "kubernetes")
PROGRAMS = ("nsenter",)
LEFT_OUT = {"test", "tests", "idlelib", "tkinter", "ensurepip", "turtledemo", "lib2to3",
            "site-packages", "__pycache__", "pydoc_data"}  # fmt: skip
SCRIPT = f"""\
#!{sys.base_prefix}/bin/python3 -P
import sys
sys.path.insert(0, "/opt/faultline/lib")
from faultline.cli.main import main
main()
"""


def requirements() -> set[str]:
    """The distributions that the image needs, as pyproject.toml names them."""
    import tomllib

    project = tomllib.loads((SRC.parent / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"]]
    for extra in EXTRAS:
        wanted += project["optional-dependencies"][extra]
    found: set[str] = set()
    todo = [Requirement(each) for each in wanted]
    while todo:
        one = todo.pop()
        if one.marker and not any(one.marker.evaluate({"extra": e}) for e in {*one.extras, ""}):
            continue
        name = re.sub(r"[-_.]+", "-", one.name).lower()
        if name in found:
            continue
        found.add(name)
        for line in importlib.metadata.requires(name) or ():
            need = Requirement(line)
            extras = {*one.extras, ""}
            if need.marker and not any(need.marker.evaluate({"extra": e}) for e in extras):
                continue
            need.marker = None
            todo.append(need)
    return found


def build(root: Path) -> None:
    """Make the root folder."""
    for folder in ("tmp", "proc", "sys", "dev", "etc", "run", "var/lib", "usr/bin", "bin"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/:/none\nuser:x:65532:65532::/:/none\n")
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    base = Path(sys.base_prefix)
    python = root / str(base).lstrip("/")  # where it looks for its own library
    (python / "bin").mkdir(parents=True)
    shutil.copy2(os.path.realpath(sys.executable), python / "bin" / version)
    for link in ("python3", "python"):
        (python / "bin" / link).symlink_to(version)
    _copy(base / "lib" / version, python / "lib" / version)
    for each in base.glob("lib/libpython*.so*"):
        shutil.copy2(each, python / "lib" / each.name)
    packages = root / "opt/faultline/lib"
    packages.mkdir(parents=True)
    for name in sorted(requirements()):
        _distribution(name, packages)
    _copy(SRC / "faultline", packages / "faultline")
    script = root / "opt/faultline/bin/faultline"
    script.parent.mkdir()
    script.write_text(SCRIPT)
    script.chmod(0o755)
    for name in PROGRAMS:
        program = shutil.which(name)
        assert program, f"{name} is not here"
        shutil.copy2(program, root / "usr/bin" / name)
    _libraries(root, base)
    compiled = ["-m", "compileall", "-q", "-j", "2", "-s", str(root), "-p", "/"]
    subprocess.run([sys.executable, *compiled, str(root / "opt"), str(python)], check=False)


def _copy(source: Path, target: Path) -> None:
    def ignored(_folder: str, names: list[str]) -> set[str]:
        return {each for each in names if each in LEFT_OUT or each.startswith("config-")}

    shutil.copytree(source, target, symlinks=True, ignore=ignored, dirs_exist_ok=True)


def _distribution(name: str, target: Path) -> None:
    found = importlib.metadata.distribution(name)
    for file in found.files or ():
        path = Path(str(found.locate_file(file))).resolve()
        if ".." in file.parts or file.suffix == ".pyc" or not path.is_file():
            continue
        (target / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target / file)


def _libraries(root: Path, base: Path) -> None:
    """Every shared library that a program or a module needs, where its loader looks for it."""
    binaries = [each for each in root.rglob("*") if _is_elf(each)]
    for line in sorted(set(_needed(binaries))):
        source = Path(line)
        if str(source).startswith((str(root), str(base), str(Path(sys.prefix).resolve()))):
            continue  # beside the module that needs it
        target = root / str(source).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(os.path.realpath(source), target)


def _is_elf(file: Path) -> bool:
    if file.is_symlink() or not file.is_file():
        return False
    with file.open("rb") as opened:
        return opened.read(4) == b"\x7fELF"


def _needed(binaries: Iterable[Path]) -> Iterator[str]:
    env = {**os.environ, "LD_LIBRARY_PATH": str(sysconfig.get_config_var("LIBDIR") or "")}
    told = subprocess.run(
        ["ldd", *map(str, binaries)], capture_output=True, text=True, env=env, check=False
    ).stdout
    for line in told.splitlines():
        if found := re.search(r"(?:=> )?(/\S+) \(0x", line):
            yield found[1]


def pack(root: Path, name: str, file: Path, entrypoint: list[str], user: str = "") -> None:
    """One layer, as `docker save` writes it."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        tar.add(root, arcname=".", filter=_of_root)
    data = layer.getvalue()
    digest = hashlib.sha256(data).hexdigest()
    environment = ["PATH=/opt/faultline/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                   "LC_ALL=C.UTF-8", "PYTHONUNBUFFERED=1"]  # fmt: skip
    config = json.dumps({
        "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
        "os": "linux",
        "config": {"Entrypoint": entrypoint, "Env": environment, "User": user},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }).encode()  # fmt: skip
    named = f"{hashlib.sha256(config).hexdigest()}.json"
    manifest = [{"Config": named, "RepoTags": [name], "Layers": [f"{digest}/layer.tar"]}]
    parts = {
        named: config,
        f"{digest}/layer.tar": data,
        "manifest.json": json.dumps(manifest).encode(),
    }
    with tarfile.open(file, mode="w") as tar:
        for path, content in parts.items():
            info = tarfile.TarInfo(path)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def _of_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info
