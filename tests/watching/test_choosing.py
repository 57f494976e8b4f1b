"""Which lines are kept, and what of them is hidden."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from faultline.api.watching import LogLine
from faultline.watching import choosing


@given(
    st.lists(st.floats(0, 100), max_size=300),
    st.integers(1, 60),
    st.lists(st.floats(0, 100), max_size=6),
    st.integers(50, 3000),
)
def test_no_more_is_kept_than_was_asked_and_no_part_is_forgotten(
    stamps: list[float], most: int, cuts: list[float], size: int
) -> None:
    lines = [LogLine(at=at, text=f"line {n}") for n, at in enumerate(sorted(stamps))]
    kept = choosing.chosen(lines, most, cuts, size)
    assert len(kept) <= most
    assert sum(len(each.text) for each in kept) <= size
    numbers = [int(each.text.split()[1]) for each in kept]
    assert numbers == sorted(set(numbers))
    parts = len([1 for part in choosing._parts(lines, sorted(cuts)) if part])
    if most >= parts and size >= 3000:
        bounds = sorted(cuts)
        shown = {sum(b <= (each.at or 0) for b in bounds) for each in kept}
        assert len(shown) == parts


@given(st.lists(st.integers(0, 50), max_size=8), st.integers(0, 100))
def test_shares_are_fair(wants: list[int], most: int) -> None:
    given_ = choosing.shares(wants, most)
    assert sum(given_) == min(most, sum(wants))
    assert all(got <= want for got, want in zip(given_, wants, strict=True))
    short = [got for got, want in zip(given_, wants, strict=True) if got < want]
    assert not short or max(given_) - min(short) <= 1 or max(given_) <= min(short) + 1


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("login password=hunter2 ok", "hunter2"),
        ('{"api_key": "abcdef123", "user": "x"}', "abcdef123"),
        ("Authorization: Bearer abc.def-ghi", "abc.def-ghi"),
        ("Authorization: Basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("connect postgres://shop:s3cret@db/x", "s3cret"),
        ("jwt eyJhbGciOi.eyJzdWIi.sig_x", "eyJzdWIi"),
        ("key AKIAABCDEFGHIJKLMNOP used", "AKIAABCDEFGHIJKLMNOP"),
        ("DB_PASSWORD='two words'", "two words"),
        ("-----BEGIN RSA PRIVATE KEY----- MIIE", "MIIE"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(line: str, secret: str) -> None:
    shown = choosing.hidden(line, choosing.SECRETS)
    assert secret not in shown
    assert "***" in shown


def test_ordinary_lines_stay_as_they_are() -> None:
    for line in ("GET /cart 200 3ms", "https://example.org:8080/x@y", "12:30:01 token bucket full"):
        assert choosing.hidden(line, choosing.SECRETS) == line
