"""Fields of objects: whatever is changed comes back, whatever else is there is not touched."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from faultline.kubefaults.fields import Field, _do, edit_all, read

STEPS = st.sampled_from(["a", "b", "c/d", "e~f", "spec"])
LEAVES = st.one_of(st.integers(), st.text(max_size=5), st.booleans())
OBJECTS = st.recursive(
    st.dictionaries(STEPS, LEAVES, max_size=3),
    lambda inner: st.dictionaries(STEPS, st.one_of(LEAVES, inner), max_size=3),
    max_leaves=12,
)


def done(each: dict[str, Any], fields: list[Field], *, back: bool) -> dict[str, Any]:
    made = copy.deepcopy(each)
    for edit in edit_all(each, fields, back=back):
        _do(made, edit)
    return made


def pruned(each: Any) -> Any:
    """Without empty maps: that a map was made for a field is no difference."""
    if not isinstance(each, dict):
        return each
    kept = {name: pruned(value) for name, value in each.items()}
    return {name: value for name, value in kept.items() if value != {}}


@given(OBJECTS, st.lists(STEPS, min_size=1, max_size=4), st.one_of(st.none(), LEAVES))
def test_a_value_is_set_and_put_back(each: dict[str, Any], steps: list[str], after: Any) -> None:
    path = tuple(steps)
    above = [read(each, path[:end]) for end in range(1, len(path))]
    assume(all(value is None or isinstance(value, dict) for value in above))
    before = read(each, path)
    assume(before != after)
    field = Field(path, before, after)
    changed = done(each, [field], back=False)
    assert read(changed, path) == after
    assert field.now(changed) == after
    assert pruned(done(changed, [field], back=True)) == pruned(each)


@given(st.lists(st.integers(0, 9), unique=True, max_size=6), st.data())
def test_entries_of_a_set_are_added_and_removed_beside_those_of_others(
    entries: list[int], data: st.DataObject
) -> None:
    each = {"spec": {"taints": entries}} if entries else {}
    gone = data.draw(st.lists(st.sampled_from(entries), unique=True)) if entries else []
    new = data.draw(st.lists(st.integers(10, 19), unique=True, max_size=3))
    fields = [Field(("spec", "taints", "[]"), one, None) for one in gone]
    fields += [Field(("spec", "taints", "[]"), None, one) for one in new]
    changed = done(each, fields, back=False)
    now = read(changed, ("spec", "taints")) or []
    assert set(now) == (set(entries) - set(gone)) | set(new)
    if now:
        now.append(99)  # somebody else adds another one
        back = done(changed, fields, back=True)
        assert set(read(back, ("spec", "taints"))) == {*entries, 99}


def test_entries_of_lists_are_found_by_their_key() -> None:
    pod = {"spec": {"containers": [{"name": "x", "image": "1"}, {"name": "web", "image": "2"}]}}
    field = Field(("spec", "containers", "name=web", "image"), "2", "3")
    changed = done(pod, [field], back=False)
    assert [each["image"] for each in changed["spec"]["containers"]] == ["1", "3"]
    changed["spec"]["containers"].reverse()
    assert done(changed, [field], back=True)["spec"]["containers"][0] == {
        "name": "web",
        "image": "2",
    }


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("a", "b"), ("a", "b"), True),
        (("a",), ("a", "b"), True),
        (("a", "b"), ("a", "c"), False),
        (("a", "[]"), ("a",), True),
    ],
)
def test_fields_touch_each_other(one: tuple[str, ...], other: tuple[str, ...], same: bool) -> None:
    made = [Field(path, None, "x") for path in (one, other)]
    assert made[0].touches(made[1]) is made[1].touches(made[0]) is same


def test_two_entries_of_one_set_do_not_touch() -> None:
    one, other = (Field(("a", "[]"), None, name) for name in ("x", "y"))
    assert not one.touches(other)
    assert one.touches(Field(("a", "[]"), "x", None))
    with pytest.raises(ValueError, match="added or removed"):
        Field(("a", "[]"), "x", "y")
