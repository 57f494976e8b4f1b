"""A run on one screen of Markdown: for the summary of a step of continuous integration, for a pull
request, for a chat.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from faultline.api.run import Run
from faultline.report import listing, page, telling, words
from faultline.report.compare import Comparison, compare
from faultline.report.found import HEADS, SearchStory
from faultline.report.narrate import story
from faultline.report.story import FaultStory, Story

_ROWS = 15
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|~>$])")
_SIGNS = {"good": "✅", "bad": "❌", "warn": "⚠️", "unknown": "❔", "plain": "…"}


def markdown(run: Run, previous: Run | None = None) -> str:
    """GitHub's dialect; every text of the document is escaped."""
    told = story(run)
    answer = page.verdict(told)
    parts = [
        f"## {_SIGNS.get(answer.tone, '')} {answer.word}: {safe(told.title)}",
        f"**{safe(page.sentence(told))}**" if page.sentence(told) else "",
        _about(told),
        _figures(told),
        *(_search(search) for search in told.searches),
        _faults(told.faults),
        _probes(told),
        _compared(compare(run, previous)) if previous is not None else "",
        _nodes(told),
        _story(told),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def safe(text: str) -> str:
    """One line in which nothing is markup."""
    line = " ".join(text.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;")
    return _SPECIAL.sub(r"\\\1", line)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    kept = rows[:_ROWS]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(row)} |" for row in kept]
    if len(rows) > len(kept):
        lines.append(f"| and {len(rows) - len(kept)} more {'| ' * (len(heads) - 1)}|")
    return "\n".join(lines)


def _about(told: Story) -> str:
    when = words.clock(told.began)
    took = words.lasting(told.length, told.idle())
    return f"{safe(told.hypothesis)}<br>{safe(told.run)}, {when}, took {took}"


def _figures(told: Story) -> str:
    tiles = page.tiles(told)
    return _table(
        [safe(tile.label) for tile in tiles],
        [[f"{tile.value}<br>{safe(tile.note)}" if tile.note else tile.value for tile in tiles]],
    )


def _search(search: SearchStory) -> str:
    answer = f"{search.answer.sign} {search.answer.word}"
    title = f"**{safe(search.node)}, {safe(answer)}:** {safe(search.text)}"
    rows = [[safe(cell) for cell in seen.cells] for seen in search.seen]
    facts = "; ".join(f"{name.lower()} {safe(value)}" for name, value in search.facts)
    table = _table((safe(search.parameter), *HEADS[1:]), rows)
    return "\n\n".join(part for part in (title, table, facts) if part)


def _nodes(told: Story) -> str:
    """Folded: each node on a line, those inside of others further in."""
    lines = listing.node_lines(told)
    if not lines:
        return ""
    kept = [
        f"{' ' * (len(name) - len(name.lstrip()))}- **{safe(name)}** {safe(said)}"
        for name, said in lines[: listing.LONGEST]
    ]
    more = [f"- and {len(lines) - len(kept)} more"] if len(lines) > len(kept) else []
    inside = "\n".join([*kept, *more])
    return f"<details><summary>Nodes</summary>\n\n{inside}\n\n</details>"


def _faults(faults: Sequence[FaultStory]) -> str:
    rows: list[list[str]] = []
    for fault in faults:
        answer = words.answer(words.EFFECTS, fault.effect or "unmeasured")
        word = f"{answer.sign} {answer.word}" if fault.started is not None else "never injected"
        end = "things are left" if fault.residue else fault.end or words.NONE
        measured = fault.measured or fault.reason or fault.error or words.NONE
        rows.append([safe(fault.name), safe(fault.asked), safe(measured), safe(word), safe(end)])
    return _table(("Fault", "Asked", "Measured", "Effect", "End"), rows)


def _probes(told: Story) -> str:
    rows = [
        [
            safe(row.probe.name),
            safe(row.probe.expected or "its own conditions"),
            safe(row.before.middle),
            safe(row.during.middle),
            safe(row.after.middle),
            safe(f"{row.answer.sign} {row.answer.word}"),
        ]
        for row in page.answers(told)
    ]
    return _table(("Probe", "Expected", "Before", "During", "After", "Answer"), rows)


def _compared(found: Comparison) -> str:
    lines = [f"**Compared with {safe(found.run)}:** {safe(found.sentence)}"]
    rows = [
        [safe(line.what), safe(line.before), safe(line.now), safe(f"{line.kind}: {line.told}")]
        for line in (*found.regressions, *found.improvements)
    ]
    lines.append(_table(("Figure", "Before", "Now", "Difference"), rows))
    if found.changed:
        lines.append(f"Not the same run: {safe('; '.join(found.changed[:5]))}")
    return "\n\n".join(line for line in lines if line)


def _story(told: Story) -> str:
    found = telling.told(told)[:30]
    if not found:
        return ""
    lines = [
        f"- {words.moment(each.at)} {safe(each.text)}"
        if each.at is not None
        else f"- {safe(each.text)}"
        for each in found
    ]
    inside = "\n".join(lines)
    return f"<details><summary>What happened</summary>\n\n{inside}\n\n</details>"
