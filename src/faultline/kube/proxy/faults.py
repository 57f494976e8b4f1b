"""The faults of a client's connection to its API server, and which of its requests they hit.

Each is a model of parameters like those of any other fault. Nothing but the proxy carries them out:
they last as long as it does, and no longer than their duration.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from faultline.api.params import Params
from faultline.api.quantities import Between, Duration, Percent, text
from faultline.kube.proxy.asked import Asked

Verb = Literal["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]
Glob = Annotated[str, Field(min_length=1, max_length=300)]
Globs = Annotated[list[Glob], Field(max_length=100)]


class Which(Params):
    """Which requests. Everything that is given must fit; discovery and health are never hit."""

    summary: ClassVar[str] = ""
    reads: ClassVar[tuple[str, ...]] = ()
    """The verbs that it can hit at all; none means all."""

    verbs: list[Verb] = Field(default_factory=list[Verb])
    """What is asked; any of these."""
    resources: Globs = Field(default_factory=list[str])
    """Of what, as `pods`, `pods/status`, `deployments.apps` or a pattern; any of these."""
    namespaces: Globs = Field(default_factory=list[str])
    """In which namespaces, or patterns of them; requests over all namespaces do not fit."""
    names: Globs = Field(default_factory=list[str])
    """Of which objects, or patterns of their names; lists and new objects do not fit."""
    agents: Globs = Field(default_factory=list[str])
    """From which programs: patterns of their User-Agent, such as `kube-controller-manager*`."""
    percent: Annotated[Percent, Between("0.001%", "100%")] = text("100%")
    """The share of these requests that is hit, drawn for each; of watches, for each watch."""

    def fits(self, asked: Asked, agent: str) -> bool:
        """Whether a request is one of these."""
        if not asked.verb or (self.reads and asked.verb not in self.reads):
            return False
        return (
            (not self.verbs or asked.verb in self.verbs)
            and _any(self.resources, *asked.names)
            and _any(self.namespaces, asked.namespace)
            and _any(self.names, asked.name)
            and _any(self.agents, agent)
        )

    @property
    def words(self) -> str:
        """What is asked of those requests that are hit."""
        return str(self.percent)


class Latency(Which):
    """Let requests wait before the server gets them."""

    summary = "requests wait before the server gets them"

    delay: Annotated[Duration, Between("1ms", "10m")]
    """How long."""
    jitter: Annotated[Duration, Between("0s", "10m")] = text("0s")
    """How far that varies, either way."""

    @property
    def words(self) -> str:
        return f"{self.delay}, {self.percent}"


class Error(Which):
    """Answer requests with an error of the API server."""

    summary = "requests are answered with an error"

    status: Literal[400, 401, 403, 404, 409, 410, 422, 429, 500, 502, 503, 504] = 500
    """The code of the answer; 409 is what a write gets that comes too late."""
    when: Literal["before", "after"] = "before"
    """`before`: the server never gets them. `after`: it has done what was asked, and the client is
    told that it has not."""
    retry_after: Annotated[int, Between(0, 3600)] = 0
    """Seconds of the header Retry-After; 0: there is none."""
    message: Annotated[str, Field(max_length=1000)] = ""
    """What the error says; without it, that it is one of Faultline's."""

    @property
    def words(self) -> str:
        return f"{self.status} {self.when} it is done, {self.percent}"


class Disconnect(Which):
    """Break the connection instead of answering."""

    summary = "the connection breaks instead of an answer"

    when: Literal["before", "after"] = "before"
    """`before`: the server never gets them; `after`: it has done what was asked."""

    @property
    def words(self) -> str:
        return f"{self.when} it is done, {self.percent}"


class WatchDelay(Which):
    """Tell of every change later than it happened, in the same order."""

    summary = "changes are told late"
    reads = ("watch",)

    delay: Annotated[Duration, Between("1ms", "1h")]
    """How much later."""

    @property
    def words(self) -> str:
        return f"{self.delay}, {self.percent} of the watches"


class WatchDrop(Which):
    """Break watches."""

    summary = "watches break, or go silent"
    reads = ("watch",)

    how: Literal["disconnect", "end", "expired", "silence"] = "disconnect"
    """`disconnect`: the connection breaks. `end`: it ends as if its time were over. `expired`: the
    server knows nothing any more of what was before (410), so that all is listed again. `silence`:
    it stays open, and what happens meanwhile is never told."""
    every: Annotated[Duration, Between("0s", "1h")] = text("0s")
    """With the first three: how old a watch becomes. Those that are older when the fault begins
    break at once."""

    @property
    def words(self) -> str:
        return f"{self.how} after {self.every}, {self.percent} of the watches"


class Stale(Which):
    """Answer from an older state of the cluster, as a server does that lags behind.

    Lists and single objects are those of that state, and watches tell nothing that came after it.
    Writes are not held back: those that name an old version are answered with a conflict.
    """

    summary = "reads and watches are behind the cluster"
    reads = ("get", "list", "watch")

    behind: Annotated[Duration, Between("100ms", "4m")] | None = None
    """How far it lags behind. Without it, time stands still at the beginning of the fault. The
    server keeps the past for five minutes as a rule: what is older is answered as it is now."""

    @property
    def words(self) -> str:
        state = f"{self.behind} behind" if self.behind is not None else "as when it began"
        return f"{state}, {self.percent}"


FAULTS: Final[dict[str, type[Which]]] = {
    "apiclient.disconnect": Disconnect,
    "apiclient.error": Error,
    "apiclient.latency": Latency,
    "apiclient.stale": Stale,
    "apiclient.watch_delay": WatchDelay,
    "apiclient.watch_drop": WatchDrop,
}


def _any(patterns: list[str], *names: str) -> bool:
    if not patterns:
        return True
    return any(fnmatchcase(name, each) for each in patterns for name in names if name)
