"""The experiments that nodes carry out: found by file or name, checked, and none within itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from faultline.api import admission
from faultline.api.document import Problem, invalid_document
from faultline.api.experiment import Experiment
from faultline.api.graph import ExperimentStep, walk
from faultline.api.run import ChildSpec
from faultline.engine import stored
from faultline.stores.model import Store

Load = Callable[[Path, dict[str, Any]], Experiment]


@dataclass(frozen=True, slots=True)
class Finder:
    """Where experiments are sought that others carry out."""

    store: Store
    check: admission.CheckFault
    load: Load

    def checked(self, experiment: Experiment) -> Experiment:
        """The same; raises InvalidDocument with everything that is wrong."""
        wrong = list(admission.check(experiment.spec, self.check))
        if wrong:
            raise invalid_document(f"experiment {experiment.metadata.name}", wrong)
        return experiment

    def children(
        self, experiment: Experiment, base: Path, outer: tuple[str, ...] = ()
    ) -> dict[str, ChildSpec]:
        """The experiments of its nodes, by the name of the node; files are relative to `base`.

        Raises InvalidDocument, UnknownName, UsageError.
        """
        found: dict[str, ChildSpec] = {}
        within = (*outer, experiment.metadata.name)
        for path, step in walk(experiment.spec.nodes):
            if not isinstance(step, ExperimentStep):
                continue
            where, child = self._found(step, base)
            name = child.metadata.name
            if name in within:
                circle = " carries out ".join([*within, name])
                problem = Problem(f"{path}.experiment", f"no circle: {circle}", step.experiment)
                raise invalid_document(f"experiment {within[-1]}", [problem])
            found[step.name] = ChildSpec(
                experiment=name,
                resolved=self.checked(child).spec,
                parameters=step.parameters,
                children=self.children(child, where, within),
            )
        return found

    def _found(self, step: ExperimentStep, base: Path) -> tuple[Path, Experiment]:
        """An experiment by its file or its name, and where its own files are sought."""
        file = base / step.experiment
        if file.is_file():
            return file.parent, self.load(file, step.parameters)
        return base, stored.get(self.store, step.experiment, step.parameters)
