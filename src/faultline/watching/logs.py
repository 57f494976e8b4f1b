"""The logs of a run: marked when it begins, read when it has ended."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from faultline.api.watching import JournalSource, LogLine, LogSpec, LogStatus, LokiSource
from faultline.errors import FaultlineError, ObserveFailed
from faultline.places import containers, output
from faultline.watching import choosing, files, forms
from faultline.watching.files import Growth, Piece

FILE = "file"
_JOURNAL_WITHIN = 20.0  # seconds
_PAGE = 5000  # lines of one answer; Loki gives no more unless it is told to
_PAGES = 4
_LATE = 1.0  # seconds after the end in which a line may still arrive


@dataclass(frozen=True, slots=True)
class Window:
    """From when to when, and where the faults began and ended; unix times."""

    start: float
    end: float
    cuts: tuple[float, ...] = ()


def begin(spec: LogSpec) -> LogStatus:
    """Note where a log stands now; what is wrong with it is told in its status."""
    status = LogStatus(name=spec.name)
    try:
        _begin(spec, status)
    except FaultlineError as error:
        status.text = error.message
    return status


def _begin(spec: LogSpec, status: LogStatus) -> None:
    if spec.file:
        status.source = f"file {spec.file}"
        status.begin = {**files.mark(spec.file), "form": FILE}
    elif spec.container:
        found = containers.find(spec.container)
        kept = output.of(found)
        status.source = found.words
        status.text = kept.why
        if kept.form:
            mark = files.mark(kept.path) if kept.form != output.JOURNAL else {"path": kept.path}
            status.begin = {**mark, "form": kept.form}
    elif spec.journal:
        status.source = f"journal: {_told(spec.journal)}"
    elif spec.loki:
        status.source = f"Loki at {urllib.parse.urlsplit(spec.loki.url).netloc.rpartition('@')[2]}"


def _told(journal: JournalSource) -> str:
    given = [
        journal.unit,
        f"pid {journal.pid}" if journal.pid else "",
        journal.identifier,
        "kernel" if journal.kernel else "",
    ]
    return ", ".join(filter(None, given))


def end(
    spec: LogSpec, status: LogStatus, window: Window, growth: Growth | None = None
) -> LogStatus:
    """What was logged meanwhile, chosen and masked; a log that cannot be read says why."""
    notes = [status.text] if status.text else []
    try:
        found = (
            [] if notes and not status.begin else list(_read(spec, status, window, growth, notes))
        )
    except FaultlineError as error:
        found, notes = [], [*notes, error.message]
    low, high = window.start - _LATE, window.end + _LATE
    found = [line for line in found if line.at is None or low <= line.at <= high]
    if spec.pattern:
        wanted = re.compile(spec.pattern)
        found = [line for line in found if wanted.search(line.text)]
    kept = choosing.chosen(found, spec.lines, window.cuts)
    kept, masked = choosing.mask(kept, _patterns(spec))
    update: dict[str, Any] = {
        "lines": kept,
        "seen": len(found),
        "masked": masked,
        "text": "; ".join(dict.fromkeys(notes)),
    }
    return status.model_copy(update=update)


def _patterns(spec: LogSpec) -> list[re.Pattern[str]]:
    return [*(choosing.SECRETS if spec.mask else ()), *map(re.compile, spec.hide)]


def _read(
    spec: LogSpec, status: LogStatus, window: Window, growth: Growth | None, notes: list[str]
) -> Iterator[LogLine]:
    form = str(status.begin.get("form", ""))
    if form == output.JOURNAL:
        yield from _journal([f"CONTAINER_ID_FULL={status.begin['path']}"], window, notes)
    elif form == FILE:
        yield from _timed(files.pieces(status.begin, notes), growth)
    elif form:
        lines = (piece.text for piece in files.pieces(status.begin, notes))
        yield from forms.docker(lines) if form == output.JSON else forms.cri(lines)
    elif spec.journal:
        yield from _journal(_matches(spec.journal), window, notes)
    elif spec.loki:
        yield from _loki(spec.loki, window, notes)


def _timed(pieces: Iterator[Piece], growth: Growth | None) -> Iterator[LogLine]:
    """Lines with the time that they say themselves, else with that at which they were written."""
    for piece in pieces:
        text = piece.text.decode(errors="replace")
        at = forms.said(text)
        if at is None and growth is not None:
            at = growth.when(piece.inode, piece.end)
        yield LogLine(at=at, text=forms.short(text))


# ------------------------------------------------------------------ journal


def _matches(journal: JournalSource) -> list[str]:
    found: list[str] = []
    if journal.unit:
        found += [f"--unit={journal.unit}"]
    if journal.identifier:
        found += [f"--identifier={journal.identifier}"]
    if journal.kernel:
        found += ["--dmesg"]
    if journal.pid:
        found += [f"_PID={journal.pid}"]
    return found


def journal_command(matches: Sequence[str], window: Window) -> list[str]:
    """How the journal is asked (journalctl(1)); times as seconds since 1970."""
    since, until = f"--since=@{window.start:.6f}", f"--until=@{window.end + _LATE:.6f}"
    return ["journalctl", "--output=json", "--no-pager", "--quiet", since, until, *matches]


def _journal(matches: Sequence[str], window: Window, notes: list[str]) -> list[LogLine]:
    if shutil.which("journalctl") is None:
        raise ObserveFailed("there is no journalctl here")
    command = journal_command(matches, window)
    lines: list[bytes] = []
    size = 0
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as asked:
        killer = _Deadline(asked, _JOURNAL_WITHIN)
        assert asked.stdout is not None
        assert asked.stderr is not None
        for line in asked.stdout:
            lines.append(line)
            size += len(line)
            if size > files.LARGEST:
                notes.append("the journal had more to say than is read")
                asked.kill()
                break
        said = asked.stderr.read(4096).decode(errors="replace").strip()
        asked.wait()
        if killer.cancel():
            notes.append(f"the journal was still being read after {_JOURNAL_WITHIN:g} s")
        elif asked.returncode > 0:
            raise ObserveFailed(f"journalctl: {said or f'exit status {asked.returncode}'}")
    return list(forms.journal(lines))


class _Deadline:
    """Kills a process after a time."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        import threading

        self._late = False
        self._process = process
        self._timer = threading.Timer(seconds, self._kill)
        self._timer.daemon = True
        self._timer.start()

    def _kill(self) -> None:
        self._late = True
        self._process.kill()

    def cancel(self) -> bool:
        """Whether it had to be killed."""
        self._timer.cancel()
        return self._late


# ------------------------------------------------------------------ Loki


def _loki(source: LokiSource, window: Window, notes: list[str]) -> list[LogLine]:
    """All lines in order of time, page by page (Loki HTTP API, query_range)."""
    found: list[LogLine] = []
    start = int(window.start * 1e9)
    for _ in range(_PAGES):
        asked = {
            "query": source.query,
            "start": str(start),
            "end": str(int((window.end + _LATE) * 1e9)),
            "limit": str(_PAGE),
            "direction": "forward",
        }
        page, last = _page(source, asked)
        found += page
        if len(page) < _PAGE:
            return found
        start = last + 1  # lines of the very same nanosecond beyond a page are left out
    notes.append(f"Loki had more than {_PAGE * _PAGES} lines; the last ones were not read")
    return found


def _page(source: LokiSource, asked: dict[str, str]) -> tuple[list[LogLine], int]:
    url = f"{source.url.rstrip('/')}/loki/api/v1/query_range?{urllib.parse.urlencode(asked)}"
    request = urllib.request.Request(url, headers=_headers(source))  # noqa: S310 (the model allows http and https alone)
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        with opener.open(request, timeout=source.timeout.seconds) as answer:
            data: Any = json.loads(answer.read(files.LARGEST))
        lines = forms.loki(data)
        stamps = [int(pair[0]) for each in data["data"]["result"] for pair in each["values"]]
    except urllib.error.HTTPError as error:
        with error:
            said = error.read(300).decode(errors="replace").strip()
        raise ObserveFailed(f"Loki answered {error.code}: {said}") from error
    except (OSError, ValueError) as error:
        raise ObserveFailed(f"Loki at {source.url}: {getattr(error, 'reason', error)}") from error
    return lines, max(stamps, default=0)


def _headers(source: LokiSource) -> dict[str, str]:
    found = {"Accept": "application/json", "User-Agent": "faultline"}
    if source.tenant:
        found["X-Scope-OrgID"] = source.tenant
    if source.token:
        found["Authorization"] = f"Bearer {source.token.resolve()}"
    elif source.user:
        password = source.password.resolve() if source.password else ""
        pair = base64.b64encode(f"{source.user}:{password}".encode()).decode()
        found["Authorization"] = f"Basic {pair}"
    return found


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A token is for the address that was named and for no other."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None
