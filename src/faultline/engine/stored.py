"""Experiments in a store, by their names: with the values that a run gives their parameters.

What a parameter stands for may be anything, a duration or a list, so an experiment is kept twice:
its spec with the defaults filled in, which is read and listed as any other document, and beside it
what was written, in which `${name}` still stands for a parameter.
"""

from __future__ import annotations

import json
from typing import Any, Final, Protocol, runtime_checkable

from pydantic import ValidationError

from faultline.api import admission
from faultline.api.document import Problem, invalid_document, problems_of
from faultline.api.experiment import Experiment
from faultline.api.model import API_VERSION, Resource
from faultline.errors import UnknownName, nearest
from faultline.stores.model import Store

TEMPLATE: Final = "faultline.dev/template"
"""The annotation with the spec as it was written, as JSON."""

Data = dict[str, Any]
_FILES = (".yaml", ".yml", ".json")


def keepable(data: Data, name: str) -> Experiment:
    """A raw document as it is put into a store; raises InvalidDocument with every problem.

    A parameter without a default is required of every run; where what depends on it cannot be read
    without a value, it needs a default to be kept.
    """
    filled = admission.filled(data, admission.placeholders(data))
    try:
        made = Experiment.model_validate(filled)
    except ValidationError as error:
        found = problems_of(error, filled)
        lacking = admission.placeholders(data)
        needed = [
            Problem(f"spec.parameters.{each}.default", f"a default: {one.path} cannot do without")
            for one in found
            for each in sorted(admission.depends(data, one.path, set(lacking)))
        ]
        raise invalid_document(name, needed or found) from error
    if not made.spec.parameters:
        return made
    notes = {**made.metadata.annotations, TEMPLATE: json.dumps(data["spec"])}
    return made.model_copy(
        update={"metadata": made.metadata.model_copy(update={"annotations": notes})}
    )


@runtime_checkable
class Verbatim(Protocol):
    """A store to which others write without us: in what they wrote `${name}` still stands for a
    parameter.
    """

    def verbatim(self, kind: type[Resource], name: str) -> Data:
        """A document as it was written; raises UnknownName."""
        ...


def _as_written(data: Data, values: Data) -> Experiment:
    meta = data["metadata"]
    written = meta["annotations"].get(TEMPLATE)
    spec = json.loads(written) if written else data["spec"]
    named = {"name": meta["name"], "labels": meta["labels"]}
    whole = {"apiVersion": API_VERSION, "kind": "Experiment", "metadata": named, "spec": spec}
    return admission.resolve(whole, values, f"experiment {meta['name']}")


def document(experiment: Experiment) -> Data:
    """The raw document of an experiment of a store, as it was written."""
    meta = experiment.metadata
    written = meta.annotations.get(TEMPLATE)
    return {
        "apiVersion": API_VERSION,
        "kind": "Experiment",
        "metadata": {"name": meta.name, "labels": meta.labels},
        "spec": json.loads(written) if written else experiment.to_json()["spec"],
    }


def with_values(experiment: Experiment, values: Data) -> Experiment:
    """An experiment of a store with its parameters filled in.

    Raises UnknownName, InvalidParameter for values that it does not take, InvalidDocument.
    """
    return admission.resolve(document(experiment), values, f"experiment {experiment.metadata.name}")


def problems(experiment: Experiment, check_fault: admission.CheckFault) -> list[Problem]:
    """Everything that is wrong with an experiment of a store, as far as its defaults tell."""
    return admission.problems(document(experiment), check_fault)


def get(store: Store, name: str, values: Data) -> Experiment:
    """The experiment of this name with these values; raises UnknownName with those that there
    are.
    """
    try:
        if isinstance(store, Verbatim):
            return _as_written(store.verbatim(Experiment, name), values)
        found = store.get(Experiment, name)
    except UnknownName as error:
        known = [each.name for each in store.summaries(Experiment, limit=200)]
        hint = nearest(name, known) if known else "put one there: faultline schedule apply FILE"
        meant = ", and no such file" if "/" in name or name.endswith(_FILES) else ""
        raise UnknownName(f"there is no stored experiment {name!r}{meant}", hint=hint) from error
    return with_values(found, values)
