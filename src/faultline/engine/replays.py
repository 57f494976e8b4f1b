"""Runs that repeat another one, put into the store; `replaying` says what they take over."""

from __future__ import annotations

import secrets
from functools import partial

from faultline.api.model import Metadata
from faultline.api.run import Run, RunSpec
from faultline.engine import repeating, replaying, wiring
from faultline.engine.replaying import Wishes
from faultline.engine.runs import Runs
from faultline.stores.model import Filter


def replay(kept: Runs, old: Run, wishes: Wishes, creator: str) -> Run:
    """The run that carries out once more what an ended one did; nobody has begun it.

    Raises UsageError if that has not ended, TargetGone or Refused where its targets are not there
    as they were, Halted.
    """
    spec = replaying.spec_of(old, wishes, partial(_if_kept, kept), creator)
    wiring.check_targets(old.model_copy(update={"spec": spec}))
    return made(kept, old, repeating.REPLAY, spec)


def made(kept: Runs, old: Run, label: str, spec: RunSpec) -> Run:
    """A run with this spec and, under the label, the name of the one that it comes from."""
    kept.check_halt()
    labels = {**old.metadata.labels, label: old.metadata.name}
    called = f"{spec.experiment[:200]}-{secrets.token_hex(4)}"
    return kept.store.create(Run(metadata=Metadata(name=called, labels=labels), spec=spec))


def _if_kept(kept: Runs, name: str) -> Run | None:
    found = kept.summaries(Filter(names=(name,)), 1) if name else ()
    return kept.get(name) if found else None
