"""The prometheus probe asks a real Prometheus that scrapes a real exporter."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from faultline.api.probe import Measurement

pytestmark = [pytest.mark.needs_prometheus, pytest.mark.slow]
Measure = Callable[..., Measurement]


@pytest.mark.parametrize(
    ("query", "reduce", "value"),
    [
        ("sum(shop_orders)", "only", 7.0),
        ('shop_orders{shop="a"}', "only", 3.0),
        ("shop_orders", "sum", 7.0),
        ("shop_orders", "max", 4.0),
        ("shop_orders", "min", 3.0),
        ("shop_orders", "mean", 3.5),
        ("scalar(sum(shop_orders))", "only", 7.0),
        ("21 * 2", "only", 42.0),
        ("up", "only", 1.0),
    ],
)
def test_a_query_gives_a_number(
    measure: Measure, prometheus: str, query: str, reduce: str, value: float
) -> None:
    found = measure("prometheus", url=prometheus, query=query, reduce=reduce)
    assert found.ok is True, found.text
    assert found.value == value


def test_the_series_are_there_for_expressions(measure: Measure, prometheus: str) -> None:
    found = measure("prometheus", url=f"{prometheus}/", query="shop_orders", reduce="last")
    shops = {each["labels"]["shop"]: each["value"] for each in found.result["series"]}
    assert shops == {"a": "3", "b": "4"}


def test_a_range_takes_all_points(measure: Measure, prometheus: str) -> None:
    fields = {"url": prometheus, "query": 'shop_orders{shop="b"}', "window": "10s"}
    for reduce in ("mean", "max", "last"):
        found = measure("prometheus", reduce=reduce, **fields)
        assert (found.ok, found.value) == (True, 4.0), found.text


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("no_such_metric", "no series matches"),
        ("shop_orders", "gave 2 series, one number is expected"),
        ("shop_nothing", "nan"),
        ("1 / 0", "inf"),
        ("sum(", "bad_data: invalid parameter"),
        ("label_replace(up, 'a', 'b', 'c', '(')", "execution: invalid regular expression"),
        ("'text'", "gave a string"),
    ],
)
def test_no_number_is_unmeasured_with_the_reason(
    measure: Measure, prometheus: str, query: str, said: str
) -> None:
    found = measure("prometheus", url=prometheus, query=query)
    assert found.ok is None
    assert said in found.text


def test_a_prometheus_that_is_not_there_is_unmeasured(measure: Measure, closed_port: int) -> None:
    found = measure("prometheus", url=f"http://127.0.0.1:{closed_port}", query="up")
    assert found.ok is None
    assert "connection refused" in found.text
