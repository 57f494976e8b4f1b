"""Whatever a file says, what is made from it is a valid document, or it is refused."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faultline.api.document import parse, read
from faultline.api.traffic import Traffic
from faultline.errors import InvalidDocument
from faultline.traffic.importing import reading
from faultline.traffic.importing.document import Writer
from faultline.traffic.importing.plan import Call, Flow, Plan, Secret, Take, hide_secrets, place

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")  # of patterns such as `[[`

DATA = Path(__file__).parent / "data"
SEEDS = {
    "har": json.loads((DATA / "shop.har").read_text()),
    "postman": json.loads((DATA / "shop.postman.json").read_text()),
    "openapi": yaml.safe_load((DATA / "shop.openapi.yaml").read_text()),
}
PIECES = st.sampled_from(
    ["{{a}}", "{{ uuid }}", "${b}", "${__P(x,{{q}})}", "{{", "}}", "{{{c}}}", "http://", "https://h",
     "/", "?", "#", "@", ":", "\x00", "\n", "\ue000a\ue001", "é", "[", "%zz", "{id}", "$guid", "(?"]
)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=12), st.lists(PIECES, max_size=5).map("".join))
SCALARS = st.one_of(TEXTS, st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False))
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
QUICK = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def made_of(plan: Plan) -> None:
    """Written out and read back, the document of a plan is valid, or there was nothing to send."""
    hide_secrets(plan)
    try:
        document = Writer(plan).document()
    except InvalidDocument as error:
        refused = error.message
    else:
        refused = ""
    if refused:
        assert "no request that could be sent" in refused
        return
    again = parse(reading.write(document, plan))
    assert again == json.loads(json.dumps(document))
    read(Traffic, again)


def paths_of(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every value within data."""
    if isinstance(data, dict):
        inner = list(data.items())
    elif isinstance(data, list):
        inner = list(enumerate(data))
    else:
        inner = []
    return [path, *(found for key, each in inner for found in paths_of(each, (*path, key)))]


PATHS = {name: [path for path in paths_of(data) if path] for name, data in SEEDS.items()}


@pytest.mark.parametrize("source", sorted(SEEDS))
@QUICK
@given(data=st.data())
def test_a_file_with_anything_anywhere(source: str, data: st.DataObject) -> None:
    changed = copy.deepcopy(SEEDS[source])
    for _ in range(data.draw(st.integers(1, 4))):
        path = data.draw(st.sampled_from(PATHS[source]))
        here: Any = changed
        for key in path[:-1]:
            try:
                here = here[key]
            except (KeyError, IndexError, TypeError):
                break
        else:
            if isinstance(here, dict) or (isinstance(here, list) and path[-1] in range(len(here))):
                here[path[-1]] = data.draw(JSON)
    try:
        plan = reading.plan_of(json.dumps(changed).encode(), Path("x.json"), source)
    except InvalidDocument:
        return
    made_of(plan)


@QUICK
@given(data=st.data())
def test_a_plan_of_jmeter_with_anything_anywhere(data: st.DataObject) -> None:
    text = (DATA / "shop.jmx").read_text()
    spots = list(re.finditer(r">([^<>\n]+)<", text))
    for spot in sorted(
        data.draw(st.lists(st.sampled_from(spots), max_size=5, unique=True)),
        key=lambda each: -each.start(),
    ):
        new = "".join(c for c in data.draw(TEXTS) if c.isprintable())
        text = text[: spot.start(1)] + escape(new) + text[spot.end(1) :]
    try:
        plan = reading.plan_of(text.encode("utf-8", "replace"), DATA / "x.jmx")
    except InvalidDocument:
        return
    made_of(plan)


NAMES = st.sampled_from(["a", "b", "uuid", "text1", "x.y", "_"])
WITH_PLACES = st.lists(TEXTS | NAMES.map(place), max_size=4).map(
    lambda parts: "".join(parts)  # noqa: PLW0108 - a bound method would be shown by its address
)
VALUES = WITH_PLACES | st.builds(Secret, st.sampled_from(["A", "B"]))
CALLS = st.builds(
    Call,
    url=st.one_of(WITH_PLACES, WITH_PLACES.map("http://h.example/".__add__)),
    method=st.sampled_from(["GET", "post", "BREW"]),
    name=WITH_PLACES,
    headers=st.dictionaries(st.sampled_from(["A", "Cookie", "b b", "Api-Key"]), VALUES, max_size=3),
    body=WITH_PLACES,
    think=st.floats(0, 1e5),
    takes=st.lists(
        st.builds(Take, NAMES, pattern=TEXTS.filter(bool))
        | st.builds(Take, NAMES, json_path=TEXTS.filter(bool)),
        max_size=2,
    ),
    code=st.sampled_from(["", "200", "x"]),
    pattern=TEXTS,
)
PLANS = st.builds(
    Plan,
    name=TEXTS,
    source=st.just("a test"),
    flows=st.lists(st.builds(Flow, TEXTS, st.lists(CALLS, max_size=3), st.integers()), max_size=3),
    constants=st.dictionaries(NAMES, WITH_PLACES, max_size=3),
    rows=st.lists(st.dictionaries(NAMES, TEXTS, max_size=2), max_size=2),
    headers=st.dictionaries(st.sampled_from(["A", "C"]), VALUES, max_size=2),
    users=st.integers(-5, 10**7),
    ramp=st.floats(0, 100),
    duration=st.floats(0, 1000),
)


@QUICK
@given(PLANS)
def test_any_plan(plan: Plan) -> None:
    made_of(plan)


@given(TEXTS)
def test_a_text_of_a_file_is_sent_as_it_is(body: str) -> None:
    """Also one that looks as if it had places: filled in, it is what it was."""
    body = body.replace("\ue000", "").replace("\ue001", "")
    plan = Plan("x", "a test", [Flow("x", [Call("http://h.example/", "POST", body=body)])])
    document = Writer(plan).document()
    row = (document["spec"].get("feed") or {"rows": [{}]})["rows"][0]
    sent = document["spec"]["scenarios"][0]["steps"][0].get("body", "")
    place_of = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*\}\}")
    assert place_of.sub(lambda found: row[found[1]], sent) == body
