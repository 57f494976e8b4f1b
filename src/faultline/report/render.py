"""The three renderings of a run. All are pure: the same document gives the same bytes."""

from __future__ import annotations

import base64
import hashlib
from functools import lru_cache, partial
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticSerializationError, to_json

from faultline.api.run import Run
from faultline.report import found, page, panels, parts, telling, words
from faultline.report.compare import compare
from faultline.report.found_chart import picture
from faultline.report.narrate import story
from faultline.report.terminal import summary

if TYPE_CHECKING:
    from jinja2 import Environment

_MANY = 12  # longer lists are folded


def html(run: Run, previous: Run | None = None) -> str:
    """One self-contained page: opens from disk, asks no network, prints, works without JavaScript.

    With `previous`, an earlier run of the same experiment, both are compared.

    Every text of the document is escaped; a content security policy allows no script but ours (by
    its hash) and no request at all.
    """
    env = _environment()
    told = story(run)
    timeline = panels.timeline(told)
    script = env.get_template("report.js").render()
    return env.get_template("report.html").render(
        story=told,
        verdict=page.verdict(told),
        sentence=page.sentence(told),
        tiles=page.tiles(told),
        answers=page.answers(told),
        sentences=telling.told(told),
        comparison=compare(run, previous) if previous is not None else None,
        timeline=timeline,
        groups=parts.groups(told, timeline.panels),
        tables=page.tables([p for p in timeline.panels if p.group != "logs"], timeline.length),
        drawn={"length": timeline.length, "panels": [p.data for p in timeline.panels]},
        document=run.to_json(),
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        many=_MANY,
        effect=partial(words.answer, words.EFFECTS),
        ending=partial(words.answer, words.ENDS),
        outcome=page.outcome,
        aim=parts.aim,
        pictures=[picture(search) for search in told.searches],
        found_heads=found.HEADS,
        judged=parts.judged,
        edges_before=partial(parts.edges_before, parts.edges(told)),
        plural=words.plural,
        significant=words.significant,
    )


def json(run: Run) -> str:
    """The document itself, as strict JSON; `apiVersion` is its schema."""
    return _strict(run.to_json(), indent=2) + "\n"


def text(run: Run, previous: Run | None = None, *, width: int = 88) -> str:
    """The run on one page of a terminal, without colour."""
    found = compare(run, previous) if previous is not None else None
    return summary(story(run), width, found)


def _strict(value: Any, indent: int | None = None) -> str:
    """JSON has no infinity and no NaN: both become null, which means that nothing was measured. Nor
    has it half of a surrogate pair, which may be in what a target said: that becomes a `?`.
    """
    try:
        return to_json(value, indent=indent, inf_nan_mode="null").decode()
    except PydanticSerializationError:
        return to_json(_unicode(value), indent=indent, inf_nan_mode="null").decode()


def _unicode(value: Any) -> Any:
    if isinstance(value, dict):
        return {_unicode(key): _unicode(item) for key, item in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [_unicode(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def _load(name: str) -> str | None:
    place = files("faultline.report") / "templates" / name
    return place.read_text(encoding="utf-8") if place.is_file() else None


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    env = Environment(
        loader=FunctionLoader(_load),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    env.policies["json.dumps_function"] = _strict
    env.policies["json.dumps_kwargs"] = {}
    filters: dict[str, Any] = {
        "span": words.span,
        "lasting": words.lasting,
        "moment": words.moment,
        "amount": words.amount,
        "clock": words.clock,
        "deviation": page.deviation,
        "residue": page.residue,
    }
    env.filters.update(filters)
    return env
