"""The prometheus probe compares a hit group with a control group in the same minutes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from faultline.api.expectation import judge
from faultline.api.probe import Measurement, ProbeSpec

Measure = Callable[..., Measurement]
real = [pytest.mark.needs_prometheus, pytest.mark.slow]
READ: TypeAdapter[Any] = TypeAdapter(ProbeSpec)
# Values that change from second to second, and alike for both groups: the load of the hour.
LOAD = "vector((time() * 7919) % 101)"
OTHER = "vector((time() * 104729) % 97)"


def fields(**more: Any) -> dict[str, Any]:
    return {"name": "it", "type": "prometheus", "url": "http://127.0.0.1:9", **more}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "expected query"),
        ({"query": "up", "groups": {"hit": "a", "unhit": "b"}}, "selector"),
        ({"groups": {"hit": "", "unhit": "b"}}, "groups.hit"),
        ({"groups": {"hit": "a", "unhit": "b", "size": "much"}}, "groups.size"),
        ({"groups": {"hit": "a", "unhit": "b", "confidence": "10%"}}, "groups.confidence"),
        ({"reduce": "last", "groups": {"hit": "a", "unhit": "b"}}, "another reduce"),
        ({"expect": "3", "groups": {"hit": "a", "unhit": "b", "size": "percent"}}, "percentage"),
    ],
)
def test_documents_that_make_no_sense_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError) as error:
        READ.validate_python(fields(**given))
    assert said in str(error.value)


class TestReal:
    pytestmark = real

    def test_the_groups_of_one_query_by_their_labels(
        self, measure: Measure, prometheus: str
    ) -> None:
        found = measure(
            "prometheus", url=prometheus, window="100s",
            query=f"sum(shop_orders{{{{{{selector}}}}}} @ end()) + {LOAD}",
            groups={"hit": 'shop="b"', "unhit": 'shop="a"'},
        )  # fmt: skip
        assert found.ok is True, found.text
        assert found.value == found.result["effect"] == 1.0
        assert (found.result["low"], found.result["high"]) == (1.0, 1.0)
        assert found.result["shown"] is True
        assert found.result["n"] == 101
        assert found.result["groups"]["hit"]["n"] == 101
        assert "hit has more 1 (1 to 1, 101 pairs)" in found.text

    def test_two_queries_without_any_difference(self, measure: Measure, prometheus: str) -> None:
        groups = {"hit": LOAD, "unhit": OTHER, "value": "certain"}
        found = measure("prometheus", url=prometheus, window="100s", groups=groups)
        assert found.ok is True, found.text
        assert found.result["low"] < 0 < found.result["high"]
        assert found.result["shown"] is False
        assert found.value == 0.0, "chance alone may explain it"
        assert "no effect is shown" in found.text

    def test_a_relative_change_is_judged_as_a_percentage(
        self, measure: Measure, prometheus: str
    ) -> None:
        groups = {"hit": f"1.5 * ({LOAD} + 10)", "unhit": f"{LOAD} + 10", "size": "percent"}
        given = {"url": prometheus, "window": "60s", "groups": groups, "expect": ",20%"}
        spec = READ.validate_python({"name": "it", "type": "prometheus", **given})
        found = measure("prometheus", **given)
        assert found.value == pytest.approx(0.5)
        judged = judge(spec.expect, spec.value_unit(), found.value, found.result, None)
        assert judged.ok is False

    def test_members_of_one_moment(self, measure: Measure, prometheus: str) -> None:
        members = " or ".join(f'label_replace(vector({n}), "n", "{n}", "", "")' for n in range(9))
        groups = {"hit": f"({members}) + 20", "unhit": members, "size": "delta"}
        found = measure("prometheus", url=prometheus, groups=groups)
        assert found.value == found.result["delta"] == 1.0
        assert found.result["groups"]["unhit"] == {
            "series": 9, "n": 9, "median": 4.0, "mean": 4.0, "min": 0.0, "max": 8.0,
        }  # fmt: skip

    def test_pairs_do_not_share_samples(self, measure: Measure, prometheus: str) -> None:
        counted = "sum(count_over_time(shop_orders{{{selector}}}[10s] @ end()))"
        query = f"{LOAD} + on() group_left 0 * {counted}"
        asked = {"url": prometheus, "window": "100s", "query": query}
        found = measure("prometheus", groups={"hit": 'shop="a"', "unhit": 'shop="b"'}, **asked)
        assert found.result["n"] == 11, found.text

    @pytest.mark.parametrize(
        ("hit", "more", "said"),
        [
            ("no_such_metric", {}, "no series of group hit matches no_such_metric"),
            ("shop_orders @ end()", {}, "a group has 2 series"),
            (LOAD, {"window": "3s"}, "4 pairs are too few"),
            (f"{LOAD} - 50", {"size": "percent"}, "needs values above 0"),
        ],
    )
    def test_what_cannot_be_compared_is_unmeasured(
        self, measure: Measure, prometheus: str, hit: str, more: dict[str, str], said: str
    ) -> None:
        given = {"window": "20s", **more}
        size = given.pop("size", "difference")
        groups = {"hit": hit, "unhit": f"{OTHER} + 1", "size": size}
        found = measure("prometheus", url=prometheus, groups=groups, **given)
        assert found.ok is None
        assert said in found.text
