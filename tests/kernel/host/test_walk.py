"""Paths inside another root directory: links and dots mean what they mean there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from faultline.kernel import filesystem, mounts, walk


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    folder = tmp_path / "root"
    (folder / "data" / "logs").mkdir(parents=True)
    (folder / "absolute").symlink_to("/data/logs")
    (folder / "up").symlink_to("../../../../data")
    (folder / "data" / "beside").symlink_to("../absolute/.")
    (folder / "circle").symlink_to("circle")
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    yield folder, fd
    os.close(fd)


@pytest.mark.parametrize(
    ("path", "real"),
    [
        ("/", "/"),
        ("/data//logs/", "/data/logs"),
        ("/absolute", "/data/logs"),
        ("/up/logs", "/data/logs"),
        ("/data/beside", "/data/logs"),
        ("/../../etc", "/etc"),
        ("/absolute/../..", "/"),
        ("/missing/file", "/missing/file"),
    ],
)
def test_a_path_is_resolved_from_that_root(root, path, real):
    assert walk.resolve(path, root[1]) == real


def test_links_in_a_circle_end(root):
    with pytest.raises(OSError, match="symbolic links"):
        walk.resolve("/circle/x", root[1])


def test_a_path_with_a_link_is_not_opened(root):
    os.close(walk.open_exactly("/data/logs", root[1]))
    for path in ("/absolute", "/up/logs"):
        with pytest.raises(OSError, match="symbolic links"):
            walk.open_exactly(path, root[1])


def test_a_folder_is_found_from_our_own_root(root):
    fd = walk.open_exactly("/data/logs", root[1])
    assert walk.from_here(fd, "/data/logs", os.getpid()) == str(root[0] / "data" / "logs")
    os.close(fd)


def test_the_mount_of_an_open_file_is_that_of_its_path(tmp_path):
    for path in (tmp_path, Path("/proc"), Path("/dev")):
        fd = os.open(path, os.O_PATH)
        found = mounts.mount_of_fd(fd)
        assert found is not None
        assert found.type == mounts.mount_of(path).type == filesystem.type_of_fd(fd)
        os.close(fd)


def test_the_root_of_a_file_system_is_found_too():
    fd = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    assert walk.from_here(fd, "/proc", os.getpid()) == "/proc"
    # As for a process that sees it elsewhere: by what is mounted, not by the name of the moment.
    assert "/proc" in walk.through_mounts(fd, "/proc", os.getpid())
    os.close(fd)
