"""A process that works for the agent and ends: requests as JSON lines on stdin, answers on stdout.

What is heavy (parameter models, measuring, undoing) is loaded here, so that the agent stays small.
Killing one at any instant does no more harm than killing a command: journal and keepers hold what
it has begun.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from faultline.agent.model import CREATOR, Document, sides
from faultline.changes.model import End, Record
from faultline.changes.undo import by_hand
from faultline.errors import Conflict, FaultlineError, TargetGone

Tell = Callable[[Document], None]
Handler = Callable[[Document, Tell], Document]


def serve(handlers: Mapping[str, Handler], threads: int) -> None:
    """Answer until stdin ends, and what was begun has come to its end."""
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what others print must not come between
    lock = threading.Lock()

    def say(message: Document) -> None:
        with lock:
            channel.write(json.dumps(message) + "\n")

    with ThreadPoolExecutor(threads) as pool:
        for line in sys.stdin:
            asked: Document = json.loads(line)
            number = asked["n"]
            tell = partial(_part, say, number)
            made = pool.submit(handlers[asked["op"]], asked, tell)
            made.add_done_callback(partial(_answer, say, number))


def _part(say: Tell, number: int, part: Document) -> None:
    say({"n": number, "part": part})


def _answer(say: Tell, number: int, made: Future[Document]) -> None:
    error = made.exception()
    if error is None:
        say({"n": number, "done": made.result()})
        return
    if isinstance(error, FaultlineError):
        told = {
            "text": f"{error.message}. {error.hint}" if error.hint else error.message,
            "retry": error.retry or _taken(error),
            "gone": isinstance(error, TargetGone),
            "taken": _taken(error),
        }
    else:
        told = {"text": f"{type(error).__name__}: {error}", "retry": True}
    say({"n": number, "error": told})


def _taken(error: BaseException) -> bool:
    """Whether the uid itself is in the journal already: somebody was asked before."""
    return isinstance(error, Conflict) and error.message.startswith("uid ")


def found(record: Record) -> Document:
    """A record as the agent wants to know it."""
    note = record.note
    if record.end is End.PERSON:
        note = by_hand(record) or note
    return {
        "uid": record.uid,
        "state": str(record.state),
        "boot": record.boot_id,
        "deadline": record.deadline,
        "created": record.created,
        "ours": record.creator.startswith(CREATOR),
        "ended": record.ended,
        "end": str(record.end or ""),
        "note": note,
        "reading": record.reading,
        "sides": sides(record.params),
    }
