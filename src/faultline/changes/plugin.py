"""The change that somebody else's code makes: a program with verbs, two scripts, an endpoint.

What it must keep is what our own kinds keep: `undo` may be called at any point of a crash, also
when nothing was done, and as often as it takes. A program is opened before the fault; one that is
another by the time of the undo is not run, and a person is asked.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from typing import Any, ClassVar, Final

from faultline.changes import endpoint, marks, program, sidecar
from faultline.changes.kind import Context, Data, Found, Kind
from faultline.changes.model import Outcome, Presence, Undone
from faultline.errors import ApplyFailed, ObserveFailed, Refused, TargetGone
from faultline.kernel import clock
from faultline.kernel.netlink import Netlink

PROTOCOL: Final = 1
_PRIOR: Final = 16384  # characters of what `check` found that the record keeps


class Plugin(Kind):
    """spec: {what, verbs, json, parameters, limits, folder} or {what, http, parameters, ...}.

    `verbs` names per verb {path, digest, argv}; with `json` each answers with an object and is
    asked for its presence, without (a script) an exit status of 0 is all that is wanted. `http` is
    {url, token, time}.
    """

    name: ClassVar[str] = "plugin"
    survives_reboot: ClassVar[bool] = True

    def takes(self, spec: Data) -> float:
        return 2.0 * patience(spec) + 1.0

    def claims(self, spec: Data, prior: Data) -> frozenset[str]:
        return frozenset(spec["claims"])

    def capture(self, spec: Data, ctx: Context) -> Data:
        return {"boot": clock.boot_id(), "found": look(spec, ctx)}

    def hold(self, spec: Data, prior: Data, ctx: Context) -> list[int]:
        return [_open(spec, path) for path in _programs(spec)]

    def apply(self, spec: Data, prior: Data, ctx: Context) -> Data:
        with marks.folder(ctx) as folder:
            sidecar.write(folder, ctx, self.name, spec, prior)
        try:
            answer = ask("apply", spec, prior, ctx)
        except ObserveFailed as error:
            raise ApplyFailed(error.message) from error
        if "error" in answer:
            raise ApplyFailed(f"{spec['what']}: {text_of(answer['error'])}")
        return {"said": text_of(answer.get("output") or answer.get("detail", ""))}

    def presence(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Presence:
        if not spec["json"]:
            return Presence.OURS if _noted(ctx) else Presence.ABSENT
        answer = ask("observe", spec, prior, ctx)
        try:
            return Presence(answer.get("present", ""))
        except ValueError:
            wanted = ", ".join(Presence)
            raise ObserveFailed(f"{spec['what']}: 'present' is not one of {wanted}") from None

    def undo(self, spec: Data, prior: Data, made: Data, ctx: Context) -> Outcome:
        same_boot = prior.get("boot") == clock.boot_id()
        if not spec["json"] and same_boot and not _noted(ctx):
            return Outcome(Undone.ABSENT, "the script had not begun, or is undone")
        program.end_calls(ctx.mark)
        try:
            outcome = _answered(ask("undo", spec, prior, ctx))
        except (
            TargetGone,
            Refused,
        ) as error:  # not the program that was there when the fault was made
            return Outcome(Undone.LEFT, error.message, self.commands(spec, prior, ctx))
        if outcome.settled and ctx.run:
            with marks.folder(ctx) as folder:
                sidecar.remove(folder, ctx)
        return outcome

    def describe(self, spec: Data) -> tuple[str, str]:
        if "http" in spec:
            where = spec["http"]["url"]
            return f"ask {where} to apply {spec['what']}", f"ask {where} to undo it"
        verbs = spec["verbs"]
        limits = f" ({spec['words']})"
        return (
            f"run {shlex.join([verbs['apply']['path'], *verbs['apply']['argv']])}{limits}",
            f"run {shlex.join([verbs['undo']['path'], *verbs['undo']['argv']])}{limits}",
        )

    def commands(self, spec: Data, prior: Data, ctx: Context) -> tuple[tuple[str, ...], ...]:
        if "http" in spec:
            return (("curl", "-X", "POST", f"{spec['http']['url'].rstrip('/')}/undo"),)
        verb = spec["verbs"]["undo"]
        values = [f"{name}={text}" for name, text in _environment("undo", spec, prior, ctx).items()]
        return (("env", *values, verb["path"], *verb["argv"]),)

    def scan(self, netlink: Netlink | None, folders: tuple[str, ...]) -> Iterator[Found]:
        return sidecar.scan(self.name, (*marks.folders(), *folders))


def patience(spec: Data) -> float:
    """Seconds that one call may take."""
    return float(spec["http"]["time"] if "http" in spec else spec["limits"]["time"])


def look(spec: Data, ctx: Context) -> Any:
    """What `check` finds before the fault, for the record; raises Refused with its words."""
    if "http" not in spec and "check" not in spec["verbs"]:
        for path in _programs(spec):
            os.close(_open(spec, path))
        return None
    try:
        answer = ask("check", spec, {}, ctx)
    except ObserveFailed as error:
        raise Refused(error.message, hint="nothing was done: it was only asked") from error
    if "refused" in answer:
        raise Refused(
            f"{spec['what']}: {text_of(answer['refused'])}", hint=text_of(answer.get("hint"))
        )
    found = answer.get("prior")
    if len(str(found)) > _PRIOR:
        raise Refused(f"{spec['what']} wants more to be remembered than {_PRIOR} characters")
    return found


def ask(verb: str, spec: Data, prior: Data, ctx: Context) -> Data:
    """One call; raises ObserveFailed if it fails, TargetGone if the program is another one."""
    message: Data = {
        "protocol": PROTOCOL,
        "verb": verb,
        "uid": ctx.uid,
        "step": ctx.index,
        "mark": ctx.mark,
        "parameters": spec["parameters"],
        "deadline": ctx.deadline / 1e9,
        "remaining": max(0.0, (ctx.deadline - clock.now()) / 1e9),
        "prior": prior.get("found"),
        "place": {name: ctx.inside.get(name) for name in ("kind", "name", "pid")},
    }
    if "http" in spec:
        return endpoint.call(spec["http"], verb, message, ctx.netlink)
    about = spec["verbs"][verb]
    fd, ours = _reach(spec, about["path"], ctx)
    try:
        argv = [about["path"], *about["argv"]]
        with endpoint.inside(ctx.netlink):
            answer = program.call(
                fd, argv, spec["limits"], message, _environment(verb, spec, prior, ctx)
            )
    finally:
        if ours:
            os.close(fd)
    if answer.status != 0:
        raise ObserveFailed(f"{spec['what']} {verb} {answer.words}")
    if spec["json"]:
        return endpoint.parsed(answer.out, f"{spec['what']} {verb}")
    return {"output": (answer.out + answer.complaint).strip()[-program.TAIL :]}


def _environment(verb: str, spec: Data, prior: Data, ctx: Context) -> dict[str, str]:
    """The same as in the message, for a program that does not read JSON."""
    known: Data = {"verb": verb, "uid": ctx.uid, "step": ctx.index, "mark": ctx.mark}
    values = {f"FAULTLINE_{name.upper()}": str(value) for name, value in known.items()}
    for name, value in spec["parameters"].items():
        values[f"FAULTLINE_PARAMETER_{name.upper()}"] = text_of(value)
    values["FAULTLINE_PRIOR"] = text_of(prior.get("found"))
    values["FAULTLINE_CALL"] = ctx.mark
    return values


def text_of(value: Any) -> str:
    """A plain value as a person writes it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value)[: program.TAIL]


def _programs(spec: Data) -> list[str]:
    """The paths that are run, each once, in a fixed order."""
    verbs: dict[str, Any] = spec.get("verbs", {})
    return sorted({about["path"] for about in verbs.values()})


def _open(spec: Data, path: str) -> int:
    return program.open_checked(path, spec["folder"], _digest(spec, path))


def _digest(spec: Data, path: str) -> str:
    return next(each["digest"] for each in spec["verbs"].values() if each["path"] == path)


def _reach(spec: Data, path: str, ctx: Context) -> tuple[int, bool]:
    """The open program, and whether it is to be closed; what was opened before comes first."""
    if not ctx.handed:
        return _open(spec, path), True
    fd = ctx.handed[_programs(spec).index(path)]
    if not program.same(fd, _digest(spec, path)):
        raise TargetGone(f"the program {path} has changed since the fault was planned")
    return fd, False


def _noted(ctx: Context) -> bool:
    if not ctx.run:
        return False
    with marks.folder(ctx) as folder:
        return sidecar.exists(folder, ctx)


def _answered(answer: Data) -> Outcome:
    """The outcome that an undo has told; a script that ended well has undone all."""
    said = text_of(answer.get("detail") or answer.get("output"))
    end = answer.get("end", "" if "output" not in answer else str(Undone.UNDONE))
    try:
        return Outcome(Undone(end), said)
    except ValueError:
        return Outcome(Undone.FAILED, f"'end' is not one of {', '.join(Undone)}: {end!r}")
