"""Faults of your own, in any language: a program with a manifest, two scripts, an HTTP endpoint.

Programs are run from a folder that the host's owner allows (/etc/faultline/plugins, or
`FAULTLINE_PLUGINS`), in which only root may write; anything outside is refused. They run with
no rights but those that their manifest names. The keepers call their undo, at the deadline or when
whoever injected them has died, until it succeeds.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Annotated, Any, ClassVar, cast

from pydantic import AfterValidator, BeforeValidator, Field

from faultline.api.params import Params
from faultline.api.quantities import Between, Duration, Flag, Size, text
from faultline.changes import endpoint, plugin, program
from faultline.changes.kind import Context
from faultline.changes.model import Change, Record
from faultline.errors import InvalidParameter, ObserveFailed
from faultline.injection import guards, manifest
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading
from faultline.places.model import Place


def _words(value: Any) -> Any:
    """A command line as people type it, taken apart without any shell; a list as it is."""
    return shlex.split(value) if isinstance(value, str) else value


def _pairs(value: Any) -> Any:
    """Several NAME=VALUE in one text, as an example has them; else the text is one of them."""
    if not isinstance(value, str):
        return value
    try:
        parts = shlex.split(value)
    except ValueError:  # a quote in a value
        return [value]
    return parts if all(re.match("[a-z][a-z0-9_]*=", part) for part in parts) else [value]


Pairs = Annotated[list[str], BeforeValidator(_pairs), Field(max_length=256)]
Words = Annotated[list[str], BeforeValidator(_words), Field(max_length=256)]


def _looked(change: Change, place: Place) -> Change:
    """The change, after its own check has agreed."""
    plugin.look(change.spec, Context("plan", 0, 0, inside=place.to_json()))
    return change


def _asked(place: Place, record: Record) -> dict[str, Any]:
    """What `observe` of a fault of ours answers."""
    step = record.steps[0]
    ctx = Context(record.uid, 0, record.deadline, inside=place.to_json())
    return plugin.ask("observe", step.change.spec, step.prior, ctx)


def _reading(answer: dict[str, Any], what: str, method: str) -> Reading:
    """An answer as our own reading; raises ObserveFailed for one that is none."""
    try:
        effect = Effect(answer.get("effect", ""))
    except ValueError:
        raise ObserveFailed(f"{what}: 'effect' is not one of {', '.join(Effect)}") from None
    given = answer.get("values")
    told = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    values = {name: float(each) for name, each in told.items() if isinstance(each, int | float)}
    asked, measured, reason = (str(answer.get(k, "")) for k in ("asked", "measured", "reason"))
    return Reading(effect, asked or what, measured, method, reason, values)


class RunParams(Params):
    """Parameters of `custom run`."""

    plugin: Annotated[str, Field(min_length=1, max_length=4095), Flag("p")]
    """The name of a manifest in the allowed folder, or its path."""
    parameters: Annotated[Pairs, Flag("s", ("set",))] = Field(default_factory=list[str])
    """What the program takes, as NAME=VALUE; give it again for each."""


class CustomRun(Fault[RunParams]):
    """A fault whose program and manifest you wrote, with parameters of its own.

    The program is called with a verb (check, apply, observe, undo), JSON on its standard input and
    an answer in JSON on its standard output. Its manifest declares what it takes and what it may
    have. Where its target has a network of its own, it runs inside of that.
    """

    id = "custom.run"
    demands = ("delete pods", "create pods/exec")
    ending = Ending.KEEPER
    does = "What the program does; the plan shows it, with the rights that it has."
    cannot = (
        "Be measured by anybody but the program itself. A program that was changed since the plan "
        "is not run again, not even for its undo: a person is asked."
    )
    measures = "Asks the program (observe)."
    restores = "Calls the program (undo), again and again until it succeeds, and asks what is left."
    example: ClassVar[dict[str, str]] = {"plugin": "{plugin}", "parameters": "times=3"}
    scratch = "plugin"

    def plan(self, place: Place, params: RunParams) -> list[Change]:
        found, path = manifest.load(params.plugin, "fault")
        values = found.values_of(manifest.assigned(params.parameters))
        executable = str(path.parent / found.executable)
        program.check(executable, str(manifest.folder()))
        digest = program.fingerprint(executable)
        verbs = {
            verb: {"path": executable, "digest": digest, "argv": [verb]}
            for verb in ("check", "apply", "observe", "undo")
        }
        spec: dict[str, Any] = {
            "what": found.name,
            "verbs": verbs,
            "json": True,
            "parameters": values,
            "limits": found.limits.spec(),
            "words": found.limits.words,
            "folder": str(manifest.folder()),
            "claims": found.claims,
        }
        guards.current().note(found.summary)
        return [_looked(Change("plugin", spec), place)]

    def observe(self, place: Place, params: RunParams, record: Record) -> Reading:
        return _reading(_asked(place, record), params.plugin, self.measures)


class ScriptParams(Params):
    """Parameters of `custom script`."""

    script: Annotated[Words, Field(min_length=1), Flag("s")]
    """The script and its arguments, as a list; no shell."""
    undo: Annotated[Words, Field(min_length=1), Flag("u")]
    """The script that undoes it, and its arguments. It may be called more than once, and when
    nothing was done."""
    observe: Annotated[Words, Flag("c", ("check",))] = Field(default_factory=list[str])
    """A script that ends with 0 if the effect is there; without it the effect is not measured."""
    user: Annotated[str, Field(min_length=1)] = "root"
    """Who they run as; whoever it is, without any capabilities."""
    patience: Annotated[Duration, Between("100ms", "2m")] = text("10s")
    """How long each of them may take."""
    memory: Annotated[Size, Between("1MiB", "8GiB")] = text("256MiB")
    """Address space of each of its processes."""


class CustomScript(Fault[ScriptParams]):
    """A script of yours, and another one that undoes it.

    The uid, the step and the mark of the fault are in the environment (`FAULTLINE_UID`,
    `FAULTLINE_STEP`, `FAULTLINE_MARK`). A script that ends with another status than 0 has failed,
    and is undone.
    """

    id = "custom.script"
    demands = ("delete pods", "create pods/exec", "create nodes/proxy")
    ending = Ending.KEEPER
    does = "Runs the script, confined; what it wrote is kept in the record, bounded."
    cannot = (
        "Know whether anything was done, other than by `observe`. A script that was changed since "
        "the plan is not run for the undo: a person is asked."
    )
    measures = "Runs `observe`, if there is one, and looks at its exit status."
    restores = "Runs `undo`, again and again until it ends with 0."
    example: ClassVar[dict[str, str]] = {
        "script": "{script} set 3",
        "undo": "{script} set 15",
        "observe": "{script} is 3",
    }
    scratch = "plugin"

    def plan(self, place: Place, params: ScriptParams) -> list[Change]:
        folder = str(manifest.folder())
        given = {"apply": params.script, "undo": params.undo, "observe": params.observe}
        verbs: dict[str, Any] = {}
        for verb, words in given.items():
            if not words:
                continue
            path = str(Path(words[0]).absolute() if "/" in words[0] else Path(folder, words[0]))
            if not Path(path).is_file():
                name = "script" if verb == "apply" else verb
                raise InvalidParameter(name, words[0], f"a program in {folder}")
            program.check(path, folder)
            digest = program.fingerprint(path)
            verbs[verb] = {"path": path, "digest": digest, "argv": words[1:]}
        limits = manifest.Limits(user=params.user, memory=params.memory, time=params.patience)
        spec: dict[str, Any] = {
            "what": Path(params.script[0]).name,
            "verbs": verbs,
            "json": False,
            "parameters": {},
            "limits": limits.spec(),
            "words": limits.words,
            "folder": folder,
            "claims": [],
        }
        return [_looked(Change("plugin", spec), place)]

    def observe(self, place: Place, params: ScriptParams, record: Record) -> Reading:
        asked = shlex.join(params.script)
        if not params.observe:
            reason = "no script to look with was given: --observe"
            return Reading.unmeasured(asked, self.measures, reason)
        method = f"{self.measures[:-1]}: {shlex.join(params.observe)}."
        try:
            said = str(_asked(place, record).get("output", ""))
        except ObserveFailed as error:
            return Reading(Effect.INEFFECTIVE, asked, "", method, error.message)
        return Reading(Effect.EFFECTIVE, asked, said or "ended with 0", method)


def _url(value: str) -> str:
    from urllib.parse import urlsplit

    found = urlsplit(value)
    if found.scheme not in ("http", "https") or not found.hostname or found.query or found.fragment:
        raise ValueError("expected an address such as http://127.0.0.1:8080/faults/slow")
    if found.username or found.password:
        raise ValueError("expected an address without a password: name a file with `token`")
    return value.rstrip("/")


class HttpParams(Params):
    """Parameters of `custom http`."""

    url: Annotated[str, AfterValidator(_url), Flag("u")]
    """Where the verbs are: `URL/check`, `URL/apply`, `URL/observe` and `URL/undo` are posted to."""
    parameters: Annotated[Pairs, Flag("s", ("set",))] = Field(default_factory=list[str])
    """What the endpoint takes, as NAME=VALUE; a value that is JSON is passed as such."""
    token: Annotated[str | None, Field(pattern="^/.*")] = None
    """A file with a bearer token, which only its owner may read; read anew for each call."""
    patience: Annotated[Duration, Between("100ms", "1m")] = text("5s")
    """How long each answer may take."""


class CustomHttp(Fault[HttpParams]):
    """A fault that an endpoint of yours makes and undoes, asked by POST with JSON.

    It is called from the network of its target, by the keepers too, who ask it to undo until it
    answers. The messages are those that `custom run` gives to a program.
    """

    id = "custom.http"
    demands = ("delete pods", "create pods/exec", "create nodes/proxy")
    ending = Ending.KEEPER
    does = "What the endpoint does."
    cannot = (
        "Undo anything while the endpoint does not answer; the keepers go on asking, and in the "
        "end a person is asked."
    )
    measures = "Asks the endpoint (observe)."
    restores = "Asks the endpoint (undo), again and again until it answers, and what is left."
    example: ClassVar[dict[str, str]] = {"url": "{url}", "parameters": "times=3"}
    scratch = "plugin"

    def plan(self, place: Place, params: HttpParams) -> list[Change]:
        if params.token:
            try:
                endpoint.token(params.token)
            except OSError as error:
                raise InvalidParameter(
                    "token", params.token, f"a file: {error.strerror}"
                ) from error
            if params.url.startswith("http:"):
                guards.current().note("the token goes over the network as it is: http, not https")
        values = {
            name: _json(value) for name, value in manifest.assigned(params.parameters).items()
        }
        spec: dict[str, Any] = {
            "what": params.url,
            "http": {
                "url": params.url,
                "token": params.token or "",
                "time": params.patience.seconds,
            },
            "json": True,
            "parameters": values,
            "claims": [],
        }
        return [_looked(Change("plugin", spec), place)]

    def observe(self, place: Place, params: HttpParams, record: Record) -> Reading:
        return _reading(_asked(place, record), params.url, self.measures)


def _json(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
