"""Lines in the log of an application that tell of errors, or of calls that took long."""

from __future__ import annotations

import os
from typing import Annotated, Any, ClassVar, Literal, TypeVar, cast

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from faultline.api.params import Params
from faultline.api.quantities import Between, Duration, Flag, Percent, text
from faultline.changes.model import Change, Record
from faultline.errors import TargetGone
from faultline.faults.file import FilePath
from faultline.injection import chance, log_form, log_target
from faultline.injection.file_target import folder, linked
from faultline.injection.log_form import Form, Words
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading
from faultline.kernel import clock
from faultline.places.model import Place
from faultline.workers import line_course, line_template

_LEAST = 500_000_000  # nanoseconds that are looked at before a rate is told
_STEP = 50_000_000


def _time(form: str) -> str:
    if form != "auto" and ("%" not in form or set(form) & set('{}"\\\n')):
        raise ValueError("expected auto, or a format of strftime such as %Y-%m-%dT%H:%M:%S.%3f")
    return form


def _pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    if not name or not equals:
        raise ValueError("expected NAME=VALUE")
    line_template.check(name)
    return f"{name}={line_template.check(value)}"


def _marker(marker: str) -> str:
    if marker and "{uid}" not in _pair(marker):
        raise ValueError("expected NAME=VALUE with {uid} in it, or nothing")
    return marker


def _listed(value: object) -> object:
    if isinstance(value, str):
        return (value,) if value else ()
    return tuple(cast("list[Any]", value)) if isinstance(value, list) else value


Template = Annotated[str, AfterValidator(line_template.check), Field(max_length=4096)]
Pair = Annotated[str, AfterValidator(_pair), Field(max_length=4096)]


class LineParams(Params):
    """What both drills take."""

    path: Annotated[FilePath, Flag("p")]
    """The log, by its absolute path. It is followed by its name when it is rotated."""
    lines: Annotated[float, Between(0.01, 5000.0), Flag("n")] = 10.0
    """How many lines in a second."""
    ramp: Annotated[Duration, Between("0s", "1d")] = text("0s")
    """How long it takes until there are so many, from none; the rate grows evenly."""
    count: Annotated[int, Between(0, 2_000_000), Flag("C")] = 0
    """How many lines in all; 0 for as many as fit in until the end."""
    percent: Annotated[Percent, Between("0.1%", "100%")] = text("100%")
    """The share of the lines that tell of trouble, spread evenly; the others tell that all is
    well."""
    mode: Literal["auto", "text", "json"] = "auto"
    """How a line is built: as text, as an object of JSON, or as the last lines of the log are."""
    time: Annotated[str, AfterValidator(_time)] = "auto"
    """How times are written, in the form of strftime(3), with `%3f` for milliseconds and `%:z`; in
    UTC if it ends in Z. `auto`: as in the last lines of the log."""
    level: Annotated[str, Field(pattern=r"^\w+$")] = "ERROR"
    """The level of the lines that tell of trouble; the others have INFO."""
    logger: Template = "faultline"
    """Who says it; empty for nobody."""
    message: Template = "simulated failure {n}"
    """What is said. `{n}`, `{uid}`, `{latency}`, `{latency:ms}`, `{now:%H:%M}` and `{utc:%H:%M}`
    are filled in; `{{` is a brace."""
    others: Template = "request {n} done in {latency}"
    """What the other lines say."""
    fields: Annotated[tuple[Pair, ...], BeforeValidator(_listed)] = text("")
    """More fields of every line, as NAME=VALUE with the same fillings; several are a list."""
    content: Template = ""
    """The whole of a line that tells of trouble, in place of what is built from the above."""
    marker: Annotated[str, AfterValidator(_marker)] = "faultline={uid}"
    """A field at the end of each line by which ours can be told from others; empty for none."""
    latency: Annotated[Duration, Between("0s", "1d"), Flag("l")] = text("0s")
    """The least that `{latency}` may be in a line that tells of trouble."""
    mean: Annotated[Duration, Between("0s", "1d")] = text("50ms")
    """The mean of `{latency}`; not below `latency`."""
    distribution: Literal["exponential", "uniform", "pareto", "constant"] = "exponential"
    """How latencies are spread from the least one on; `pareto` has the longest tail."""
    keep: Literal["held", "all", "none"] = "held"
    """Which lines stay: all, none, or those of a file that a program has open (held)."""

    @model_validator(mode="after")
    def _possible(self) -> LineParams:
        if self.mean < self.latency:
            raise ValueError("expected a mean that is not below latency")
        if self.distribution == "pareto" and not self.latency:
            raise ValueError("expected a latency above 0s for pareto")
        return self


P = TypeVar("P", bound=LineParams)


class _LineFault(Fault[P]):
    """What both drills share."""

    ending = Ending.KEEPER
    scratch = "file"
    does = (
        "A worker appends lines (O_APPEND) and keeps a book of where each one stands, in files of "
        "ours (0600) beside the log. After a rotation it goes on in the file that has the name."
    )
    cannot = (
        "It takes nothing away from the application. Copies that others have made of the lines, "
        "such as those of a log shipper or of a compressed log, stay. Files on network file "
        "systems are refused."
    )
    measures = (
        "Reads the lines back out of the log, byte for byte as they were written, and counts them "
        "against those due since the first."
    )
    restores = (
        "Stops the worker; takes out the lines that are still as written, unless they are kept."
    )

    def plan(self, place: Place, params: P) -> list[Change]:
        linked(place, params.path)
        where, name = os.path.split(params.path)
        form = form_of(params, log_target.tail(place, params.path))
        interval, ramp = round(1e9 / params.lines), int(params.ramp)
        shared: dict[str, Any] = {"path": params.path, "count": params.count, "interval": interval}
        shared["follow"] = True
        latency = {"low": int(params.latency), "mean": int(params.mean)}
        work = {
            **shared,
            "path": f"{folder(place, where, 'path').rstrip('/')}/{name}",
            "template": trouble(form, params),
            "others": well(form, params),
            "share": params.percent.ratio,
            "ramp": ramp,
            "latency": {**latency, "shape": params.distribution},
            "other_latency": self.quiet(params),
            "seed": chance.seed(),
        }
        what = f"appends {params.lines:g} lines per second to {params.path}"
        worker = {"module": "append_lines", "spec": work, "what": what}
        return [Change("file_lines", {**shared, "keep": params.keep}), Change("worker", worker)]

    def quiet(self, params: P) -> dict[str, Any]:
        """The latencies that the other lines tell of."""
        return {"low": 0, "mean": int(params.mean), "shape": "exponential"}

    def observe(self, place: Place, params: P, record: Record) -> Reading:
        asked = f"{params.lines:g} lines per second" + (
            f", {params.count} in all" if params.count else ""
        )
        asked += f", {params.percent} of them {self.trouble}" if params.percent < 100 else ""
        try:
            seen, elapsed = self._watched(place, params, record)
        except TargetGone as gone:
            return Reading.unmeasured(asked, self.measures, gone.message)
        interval, ramp = round(1e9 / params.lines), int(params.ramp)
        due = line_course.lines_by(elapsed, interval, ramp) if seen.begun else 0
        due = min(due, params.count) if params.count else due
        seconds = max(elapsed, 1) / 1e9
        rate = "" if params.count and due == params.count else f", {seen.written / seconds:.3g}/s"
        measured = f"{seen.found} lines read back of {due} due{rate}"
        if seen.files > 1:
            measured += f", in {seen.files} files"
        values = {"asked": float(due), "measured": float(seen.written), "n": float(seen.found)}
        # A tenth of a second for a machine that is busy, and what was just being written.
        ok = seen.written >= due - (2 + due // 20 + 100_000_000 // interval)
        if ok and seen.found:
            return Reading(Effect.EFFECTIVE, asked, measured, self.measures, "", values)
        reason = "they were taken out of the log" if ok else "fewer were written; is the disk full?"
        reason = reason if seen.begun else "no line has been written yet"
        return Reading(Effect.INEFFECTIVE, asked, measured, self.measures, reason, values)

    trouble: ClassVar[str]  # what the lines that count tell of

    def _watched(self, place: Place, params: P, record: Record) -> tuple[log_target.Counted, int]:
        """The lines, once there is something to be counted, and the nanoseconds since the first."""
        begin = clock.now()
        wait = min(_LEAST, record.duration // 4)
        while True:
            seen = log_target.count(place, record)
            elapsed = clock.now() - seen.begun if seen.begun else 0
            all_there = bool(params.count) and seen.written >= params.count
            if elapsed >= wait or all_there or clock.now() - begin >= 2 * wait:
                return seen, elapsed
            clock.sleep_until(clock.now() + _STEP)


def form_of(params: LineParams, tail: bytes) -> Form:
    """How the lines are to look."""
    seen = log_form.read(tail)
    kind = seen.kind if params.mode == "auto" else params.mode
    form = seen if kind == seen.kind else Form(kind, seen.time)
    if params.time == "auto":
        return form
    time = log_form.time_field(params.time)
    return Form(form.kind, time, form.opening, form.closing, form.keys, form.sample)


def trouble(form: Form, params: LineParams) -> str:
    """The template of a line that tells of trouble."""
    words = Words(params.level, params.logger, params.message, _fields(params))
    return log_form.marked(params.content or log_form.template(form, words), params.marker)


def well(form: Form, params: LineParams) -> str:
    """The template of the other lines."""
    words = Words("INFO", params.logger, params.others, _fields(params))
    return log_form.marked(log_form.template(form, words), params.marker)


def _fields(params: LineParams) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name, value) for name, _, value in (each.partition("=") for each in params.fields)
    )


class StormParams(LineParams):
    """Parameters of `log storm`."""


class LogStorm(_LineFault[StormParams]):
    """Errors in a log, at a rate, though nothing is wrong: an error surge that hurts nobody."""

    id = "log.storm"
    trouble = "errors"
    example: ClassVar[dict[str, str]] = {"path": "{folder}/app.log", "lines": "50", "keep": "none"}


class SlowParams(LineParams):
    """Parameters of `log slow`."""

    level: Annotated[str, Field(pattern=r"^\w+$")] = "WARN"
    """The level of the lines that tell of a slow call; the others have INFO."""
    logger: Template = "faultline"
    """Who says it; empty for nobody."""
    message: Template = "call {n} took {latency}"
    """What is said. `{n}`, `{uid}`, `{latency}`, `{latency:ms}`, `{now:%H:%M}` and `{utc:%H:%M}`
    are filled in; `{{` is a brace."""
    others: Template = "call {n} took {latency}"
    """What the lines of quick calls say."""
    fields: Annotated[tuple[Pair, ...], BeforeValidator(_listed)] = text("latency_ms={latency:ms}")
    """More fields of every line, as NAME=VALUE with the same fillings; several are a list."""
    latency: Annotated[Duration, Between("1ms", "1d"), Flag("l")] = text("1s")
    """The threshold: every slow call takes longer."""
    mean: Annotated[Duration, Between("1ms", "1d")] = text("2s")
    """The mean of the slow calls; not below `latency`."""


class LogSlow(_LineFault[SlowParams]):
    """Calls in a log that took longer than a threshold, though nobody waited."""

    id = "log.slow"
    trouble = "slow"
    example: ClassVar[dict[str, str]] = {
        "path": "{folder}/app.log",
        "lines": "50",
        "latency": "800ms",
        "mean": "1500ms",
        "keep": "none",
    }

    def quiet(self, params: SlowParams) -> dict[str, Any]:
        """Calls below the threshold."""
        return {"low": 0, "mean": int(params.latency) // 4, "shape": "uniform"}
