"""Whatever is sent to whichever route, the answer is one that was foreseen."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.server.conftest import Client, Served, document

LEFT_OUT = {"/v1/events", "/v1/openapi.json"}  # the one does not end, the other has no input
WORDS = ["name", "spec", "fault", "params", "target", "reason", "at", "node", "answer",
         "experiment", "parameters", "kind", "apiVersion", "metadata", "duration", "uid",
         "allow", "pid"]  # fmt: skip

text = st.one_of(st.sampled_from(["", "x", "network.delay", "Experiment", "10s", "-1s"]), st.text())
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), text),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.one_of(st.sampled_from(WORDS), st.text()), inner, max_size=4),
    ),
    max_leaves=10,
)


@st.composite
def spoiled(draw: st.DrawFn) -> Any:
    """A good experiment in which one place is something else."""
    made: Any = document("spoiled")
    made["metadata"]["name"] = "Spoiled"  # never carried out
    here = made
    while True:
        key = draw(
            st.sampled_from(list(here) if isinstance(here, dict) else list(range(len(here))))
        )
        if not isinstance(here[key], dict | list) or not here[key] or draw(st.booleans()):
            here[key] = draw(values)
            return made
        here = here[key]


def test_nothing_that_is_sent_is_unforeseen(served: Served) -> None:
    call = served.unix
    paths = call.get("/openapi.json")["paths"]
    routes = sorted(
        (method.upper(), path)
        for path, methods in paths.items()
        if path not in LEFT_OUT
        for method in methods
        # What halts or lifts everything would be in the way of the others.
        if not (path == "/v1/halt" and method != "get")
    )

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.sampled_from(routes),
        text,
        st.one_of(values, spoiled()),
        st.dictionaries(text, text, max_size=2),
    )
    def try_one(route: tuple[str, str], name: str, body: Any, query: dict[str, str]) -> None:
        method, path = route
        for part in ("{name}", "{uid}", "{fault}"):
            path = path.replace(part, quote(name, safe="", errors="replace"))
        asked = "&".join(
            f"{quote(k, safe='', errors='replace')}={quote(v, safe='', errors='replace')}"
            for k, v in query.items()
        )
        _foreseen(call, method, f"{path.removeprefix('/v1')}?{asked}", body)

    try_one()


def _foreseen(call: Client, method: str, path: str, body: Any) -> None:
    answer = call(method, path, None if method == "GET" else body)
    assert answer.status != 500, answer.body
    if answer.status >= 400:
        problem = answer.json()
        assert problem["code"], problem
        assert problem["detail"], problem
