"""Error budgets in a report: what was spent of each over time, and whether it was too much."""

from __future__ import annotations

from dataclasses import dataclass

from faultline.api.budget import BudgetStatus, ErrorBudget
from faultline.api.experiment import ExperimentSpec
from faultline.api.run import RunStatus
from faultline.report import words
from faultline.report.chart import Frame, Panel, Wanted, panel
from faultline.report.moments import Clock
from faultline.report.series import Point, Series


@dataclass(frozen=True, slots=True)
class BudgetStory:
    """One error budget; all shares are of the whole window's budget."""

    name: str
    about: str  # `99.5% over 30d, by answers`
    allowed: float
    spent: float
    unknown: float
    burn: float | None
    exceeded: float | None
    text: str
    points: tuple[Point, ...] = ()
    blind: tuple[Point, ...] = ()  # the same with what could not be measured on top

    @property
    def tone(self) -> str:
        """How much of what may be spent is spent."""
        if self.exceeded is not None:
            return "bad"
        return "warn" if self.spent + self.unknown > self.allowed / 2 else "good"


def budgets(status: RunStatus, spec: ExperimentSpec, clock: Clock) -> tuple[BudgetStory, ...]:
    """The budgets of a run; of one that had no fault yet there is nothing to tell."""
    specs = {each.name: each for each in spec.error_budgets}
    return tuple(_told(specs[one.name], one, clock) for one in status.budgets if one.name in specs)


def _told(spec: ErrorBudget, status: BudgetStatus, clock: Clock) -> BudgetStory:
    total = spec.seconds
    lost = [(clock.at(p.at), p.bad / total, (p.bad + p.unknown) / total) for p in status.points]
    return BudgetStory(
        name=spec.name,
        about=f"{spec.objective} over {spec.window}, by {spec.probe or spec.traffic}",
        allowed=spec.spend.ratio,
        spent=status.spent,
        unknown=status.unknown,
        burn=status.burn,
        exceeded=clock.maybe(status.exceeded_at),
        text=status.text,
        points=tuple((at, bad) for at, bad, _ in lost),
        blind=tuple((at, whole) for at, _, whole in lost) if status.unknown else (),
    )


def drawn(frame: Frame, index: int, budget: BudgetStory) -> Panel:
    """What was spent over time, under what may be."""
    series = [Series("spent", budget.points, "a")]
    if budget.blind:
        series.append(Series("with what could not be measured", budget.blind, "b"))
    wanted = Wanted(
        f"budget{index}",
        f"Error budget {budget.name}",
        "ratio",
        tuple(series),
        note=budget.about,
        high=budget.allowed,
        empty="no fault began, so nothing was counted",
    )
    return panel(frame, wanted)


def note(budget: BudgetStory) -> str:
    """What stands under the key figure."""
    parts = [f"of {budget.about}; {words.amount(budget.allowed, 'ratio')} may be"]
    if budget.unknown:
        parts.append(f"{words.amount(budget.unknown, 'ratio')} more not measured")
    if budget.burn:
        parts.append(f"up to {words.significant(budget.burn)} times too fast")
    if budget.exceeded is not None:
        parts.append(f"too much at {words.moment(budget.exceeded)}")
    return ", ".join(parts)
