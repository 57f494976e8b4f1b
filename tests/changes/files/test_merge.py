"""The merge logic holds for any content."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from faultline.changes.merge import How, common_prefix, merge, replaced, three_way, torn

line = st.sampled_from([b"a\n", b"b\n", b"c\n", b"same\n", b"x=1\n", b"\n"])
text = st.lists(line, max_size=12).map(b"".join)
anything = st.binary(max_size=64)


@given(anything, anything)
def test_what_nobody_else_touched_comes_back_exactly(original, broken):
    found = merge(original, broken, broken)
    assert found is not None
    assert (found.content, found.how) == (original, How.UNTOUCHED)


@given(anything, anything, st.integers(0, 80))
def test_a_killed_write_is_recognised_at_every_byte(original, broken, done):
    done = min(done, len(broken))
    current = broken[:done] + original[done:]
    assert torn(original, broken, current)
    found = merge(original, broken, current)
    assert found is not None
    assert found.content == original


@given(text, text, text)
def test_what_is_appended_is_never_lost(original, broken, tail):
    found = merge(original, broken, broken + tail)
    assert found is not None
    if found.how is not How.UNTOUCHED:
        assert found.content.endswith(tail)
        assert found.content == original + tail


@given(text, text)
def test_a_merge_with_one_side_unchanged_is_the_other_side(base, other):
    assert three_way(base, other, base) == other
    assert three_way(base, base, other) == other
    assert three_way(base, other, other) == other


@given(st.lists(line, min_size=6, max_size=12), st.data())
def test_changes_of_lines_far_apart_are_both_kept(lines, data):
    mine = data.draw(st.integers(0, len(lines) // 2 - 2))
    theirs = data.draw(st.integers(len(lines) // 2 + 1, len(lines) - 1))
    ours, others, both = list(lines), list(lines), list(lines)
    ours[mine] = both[mine] = b"OURS\n"
    others[theirs] = both[theirs] = b"THEIRS\n"
    found = three_way(b"".join(lines), b"".join(ours), b"".join(others))
    assert found == b"".join(both)


@given(st.lists(line, min_size=1, max_size=8), st.data())
def test_two_changes_of_one_line_are_never_merged(lines, data):
    at = data.draw(st.integers(0, len(lines) - 1))
    ours, others = list(lines), list(lines)
    ours[at], others[at] = b"OURS\n", b"THEIRS\n"
    assert three_way(b"".join(lines), b"".join(ours), b"".join(others)) is None


@given(anything, anything)
def test_the_common_prefix_is_the_longest(one, two):
    length = common_prefix(one, two)
    assert one[:length] == two[:length]
    assert one[length : length + 1] != two[length : length + 1] or length == min(len(one), len(two))


def test_a_literal_is_taken_as_it_is():
    assert replaced(b"a.b a+b", "a.b", r"\1", regex=False, line=0, count=0) == b"\\1 a+b"


def test_line_and_count_narrow_what_is_replaced():
    content = b"x x\nx x\n"
    assert replaced(content, "x", "y", regex=False, line=2, count=0) == b"x x\ny y\n"
    assert replaced(content, "x", "y", regex=False, line=0, count=3) == b"y y\ny x\n"
    assert replaced(content, "^x", "y", regex=True, line=0, count=0) == b"y x\ny x\n"
    assert replaced(content, "x", "y", regex=False, line=9, count=0) == content
