"""From a selector of a document to targets: what the set is now, who of it is spared, who is hit.

It looks and touches nothing. A target is named by what stays its own: a container by its whole id,
a process by pid and start time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from pydantic.alias_generators import to_camel

from faultline.api.document import Problem
from faultline.api.drawing import picked
from faultline.api.selector import (
    ELSEWHERE,
    CgroupSelector,
    Choice,
    Chosen,
    ContainerSelector,
    PluginSelector,
    PodSelector,
    ProcessSelector,
    Selector,
)
from faultline.api.target import TargetSpec
from faultline.errors import (
    FaultlineError,
    InvalidParameter,
    ObserveFailed,
    Protected,
    TargetGone,
    Unsupported,
)
from faultline.injection import extensions, guards, manifest, selecting
from faultline.injection.process_target import user_number
from faultline.kernel import procfs
from faultline.kernel.selection import Selection
from faultline.places import bundle, containers, labelled
from faultline.places.container import Container

_SHOWN = 10  # targets that a sentence names


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the set."""

    target: TargetSpec
    words: str
    key: str  # what chance goes by: its own among the set, and the same the next time, if possible
    names: tuple[str, ...]  # what exclusions are compared with
    spared: str = ""  # why it is never hit


def choose(node: str, selector: Selector, seed: str, allow: frozenset[str] = frozenset()) -> Choice:
    """What a selector means now.

    Raises TargetGone if nothing fits, Refused if too few do, Unsupported for what only a cluster
    can answer, and what a plug-in raises.
    """
    _of_host(node, selector)
    rest: list[Candidate] = []
    with guards.active(guards.Guard(allow)):
        if selector.plugin is not None:
            found, rest = _of_plugin(selector.plugin)
        else:
            found = _SETS[selector.kind](getattr(selector, selector.kind))
    spared = {each.words: each.spared for each in (*found, *rest) if each.spared}
    free = [each for each in found if not each.spared]
    left_out = [each for each in free if _excluded(each, selector.exclude)]
    spared |= {each.words: "excluded" for each in left_out}
    free = [each for each in free if each not in left_out]
    what = selector.kind if selector.plugin is None else f"targets of {selector.plugin.name}"
    if not free:
        told = "; ".join(f"{words}: {why}" for words, why in list(spared.items())[:_SHOWN])
        raise TargetGone(f"{node}: none of the {what} fits", hint=told)
    free = _apart(free)
    hit = picked([each.key for each in free], selector, selector.seed or seed, node)
    chosen = [each for each in free if each.key in hit]
    others = [each for each in free if each.key not in hit]
    others += [each for each in rest if not each.spared]
    return Choice(
        node=node,
        targets=[Chosen(target=each.target, words=each.words) for each in chosen],
        rest=[Chosen(target=each.target, words=each.words) for each in others],
        spared=spared,
        text=_told(what, chosen, others, spared),
    )


def _of_host(node: str, selector: Selector) -> None:
    beyond = [
        to_camel(name)
        for name in ("nodes", "objects", "control_plane", "spread")
        if getattr(selector, name) is not None
    ]
    beyond += ["live"] if selector.live != "freeze" else []
    if selector.pods is not None:
        beyond += [f"pods.{to_camel(name)}" for name in ELSEWHERE if getattr(selector.pods, name)]
    if beyond:
        raise Unsupported(
            f"{node}: selector.{beyond[0]} asks what only a cluster knows",
            hint="apply it as a Fault in a cluster with an operator",
        )


def _apart(found: list[Candidate]) -> list[Candidate]:
    """The same, each with a key of its own: two runtimes may have a container of one name."""
    count = Counter(each.key for each in found)
    return [
        each
        if count[each.key] == 1
        else replace(each, key=f"{each.key}\0{each.target.model_dump_json()}")
        for each in found
    ]


def _told(
    what: str, chosen: Sequence[Candidate], others: Sequence[Candidate], spared: dict[str, str]
) -> str:
    named = ", ".join(each.words for each in chosen[:_SHOWN])
    more = f" and {len(chosen) - _SHOWN} more" if len(chosen) > _SHOWN else ""
    without = f"; {len(spared)} spared" if spared else ""
    return f"{len(chosen)} of {len(chosen) + len(others)} {what}: {named}{more}{without}"


def _excluded(candidate: Candidate, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, each) for each in patterns for name in candidate.names if name)


def _fits(pattern: str, *names: str) -> bool:
    return not pattern or any(fnmatchcase(name, pattern) for name in names if name)


# ---------------------------------------------------------------------- sets


def _containers(asked: ContainerSelector) -> list[Candidate]:
    known = [each for each in containers.all_containers() if not each.sandbox]
    kept = [each for each in known if asked.runtime in (None, each.runtime)]
    kept = [each for each in kept if _fits(asked.name, _called(each), each.in_pod)]
    kept = _labelled(kept, asked.labels)
    images: dict[str, str] = {}
    if asked.image and kept:
        images, complaints = labelled.images(kept)
        if complaints:
            raise ObserveFailed("; ".join(complaints))
        kept = [each for each in kept if _image_fits(asked.image, images.get(each.id, ""))]
    return [_container(each, images.get(each.id, "")) for each in kept]


def _called(each: Container) -> str:
    """Its name; of containerd an id that somebody chose is one."""
    return each.name or (each.id if each.short == each.id else "")


def _labelled(kept: list[Container], labels: dict[str, str]) -> list[Container]:
    for key, value in labels.items():
        having, complaints = containers.with_label(containers.all_containers(), key, value)
        if complaints:
            raise ObserveFailed("; ".join(complaints))
        ids = {each.id for each in having}
        kept = [each for each in kept if each.id in ids]
    return kept


def _image_fits(pattern: str, image: str) -> bool:
    """Compared whole, without its registry, and without its tag."""
    last = image.rpartition("/")[2]
    return bool(image) and _fits(pattern, image, last, last.partition(":")[0].partition("@")[0])


def _container(each: Container, image: str) -> Candidate:
    names = (each.id, each.name, each.in_pod, each.pod, image, image.rpartition("/")[2])
    spared = ""
    inside = procfs.ourselves()
    group = each.group
    if each.process.pid in inside or (group and any(procfs.in_group(pid, group) for pid in inside)):
        spared = "this command runs in it"
    inner = f"{each.pod}/{each.in_pod}" if each.pod else each.name
    return Candidate(TargetSpec(container=each.id), each.words, inner or each.id, names, spared)


def _pods(asked: PodSelector) -> list[Candidate]:
    known = [each for each in containers.all_containers() if each.pod and not each.sandbox]
    known = _labelled(known, asked.labels)
    found: list[Candidate] = []
    for each in known:
        space, _, name = each.pod.partition("/")
        spaces = asked.namespaces or ["*"]
        if not any(fnmatchcase(space, one) for one in spaces) or not _fits(asked.name, name):
            continue
        if not _fits(asked.container, each.in_pod):
            continue
        path = f"{each.pod}/{each.in_pod}" if each.in_pod else each.pod
        as_one = _container(each, each.image)
        names = (path, each.pod, name, *as_one.names)
        target = TargetSpec(pod=path)
        found.append(Candidate(target, f"pod {path}", path, names, as_one.spared))
    return found


def _processes(asked: ProcessSelector) -> list[Candidate]:
    wanted = Selection(
        name=asked.process,
        pattern=asked.pattern or ("" if _other(asked) else "."),
        port=asked.port or 0,
        uid=user_number(asked.user) if asked.user else -1,
    )
    found = wanted.find()
    if asked.parent:
        above = {each.pid for each in procfs.find_by_cmdline(asked.parent)}
        found = [each for each in found if each.ppid in above]
    kept = sorted(outermost(found), key=lambda each: (each.id.start, each.pid))
    return [_process(each, kept) for each in kept]


def _other(asked: ProcessSelector) -> bool:
    return bool(asked.process or asked.port or asked.user)


def outermost(found: Sequence[procfs.Process]) -> list[procfs.Process]:
    """Those that none of the others has started: a target is a process with its descendants."""
    pids = {each.pid for each in found}
    return [each for each in found if pids.isdisjoint(procfs.ancestors(each.pid))]


def _process(each: procfs.Process, among: Sequence[procfs.Process] = ()) -> Candidate:
    """Pids differ each time: chance goes by the command line, and of equal ones by their order."""
    target = TargetSpec(pid=each.pid, start=each.id.start)
    same = [one.id for one in among if one.cmdline == each.cmdline]
    number = same.index(each.id) if same else each.pid
    key = "\0".join((*each.cmdline, str(number)))
    words = f"process {each.pid} ({each.name})"
    return Candidate(target, words, key, (each.name, each.program), _protected([each]))


def _protected(members: Sequence[procfs.Process]) -> str:
    try:
        guards.protect(members)
    except Protected as error:
        return error.message
    return ""


def _cgroups(asked: CgroupSelector) -> list[Candidate]:
    members: dict[str, list[procfs.Process]] = {}
    for process in procfs.processes():
        for path in bundle.groups(process.pid):
            parts = path.strip("/").split("/")
            for end in range(1, len(parts) + 1):
                above = "/" + "/".join(parts[:end])
                if above != "/" and _fits(asked.pattern, above, parts[end - 1]):
                    inside = members.setdefault(above, [])
                    if process not in inside:
                        inside.append(process)
                    break  # the outermost that fits
    return [
        Candidate(
            TargetSpec(cgroup=path),
            f"control group {path}",
            path,
            (path, path.rpartition("/")[2]),
            _protected(inside),
        )
        for path, inside in sorted(members.items())
    ]


def _of_plugin(asked: PluginSelector) -> tuple[list[Candidate], list[Candidate]]:
    found = selecting.select(asked.name, asked.params)
    return [_named(each) for each in found.targets], [_named(each) for each in found.rest]


def _named(target: TargetSpec) -> Candidate:
    """A target that a plug-in has named, with its start time where it is a process."""
    given = target.model_dump(exclude_defaults=True)
    kind, value = next((key, value) for key, value in given.items() if key != "start")
    name, spared = str(value), ""
    if kind == "pid":
        try:
            process = procfs.process(int(value))
        except ProcessLookupError:
            return Candidate(target, f"process {value}", name, (name,), "it has ended")
        if target.start in (0, process.id.start):
            return _process(process)
        spared = "it has ended"
    return Candidate(target, f"{kind} {value}", name, (name,), spared)


_SETS: dict[str, Callable[[Any], list[Candidate]]] = {
    "containers": _containers,
    "processes": _processes,
    "cgroups": _cgroups,
    "pods": _pods,
}


# ---------------------------------------------------------------------- documents


def problems(plugin: PluginSelector) -> list[Problem]:
    """What is wrong with the plug-in of a selector, as it says itself; paths below `plugin`."""
    try:
        if extensions.is_manifest("faultline.selectors", plugin.name):
            manifest.load(plugin.name, "selector")[0].values_of(plugin.params)
        else:
            kind: type[selecting.Selector[Any]] = extensions.load(
                "faultline.selectors", plugin.name
            )
            kind.params_type().read(plugin.params)
    except InvalidParameter as error:
        return [Problem(f"params.{error.field}", error.expected, error.given)]
    except FaultlineError as error:
        said = f"{error.message}; {error.hint}" if error.hint else error.message
        return [Problem("name", said, plugin.name)]
    return []
