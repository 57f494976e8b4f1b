"""A HAR (HTTP archive 1.2): what a browser has sent, in its order and with its pauses."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from urllib.parse import urlencode, urlsplit

from faultline.traffic.importing.jsontree import Entries, each, entries, text
from faultline.traffic.importing.plan import Call, Flow, Plan, Secret, clean, is_secret, variable

_SHORTEST_PAUSE = 0.1  # seconds: what is closer together was not thought about
_LONGEST_PAUSE = 60.0
_STEPS = 200  # of one scenario

# What a client says by itself, and what belongs to one connection.
_OWN = {
    "accept-encoding", "connection", "content-length", "cookie", "host", "keep-alive", "priority",
    "proxy-connection", "te", "transfer-encoding", "upgrade", "upgrade-insecure-requests",
    "if-none-match", "if-modified-since",
}  # fmt: skip


def read(data: Entries, path: Path) -> Plan:
    """The plan in an archive."""
    plan = Plan(path.stem, "a HAR")
    calls: list[Call] = []
    last: float | None = None
    for entry in each(data, "log", "entries"):
        call = _call(entry, plan)
        if call is None:
            continue
        begin, length = _times(entry)
        if begin is not None:
            gap = begin - last if last is not None else 0.0
            if gap >= _SHORTEST_PAUSE:
                call.think = round(min(gap, _LONGEST_PAUSE), 1)
            last = max(last or 0.0, begin + length)
        calls.append(call)
    parts = [calls[n : n + _STEPS] for n in range(0, len(calls), _STEPS)]
    if len(parts) > 1:
        plan.notes.add("", f"{len(calls)} requests are too many for one scenario: {len(parts)} now")
    plan.flows = [Flow(plan.name, part, go_on=True) for part in parts]
    return plan


def _times(entry: Entries) -> tuple[float | None, float]:
    """When it began (unix time) and how long it took."""
    try:
        begin = datetime.fromisoformat(text(entry, "startedDateTime")).timestamp()
    except (ValueError, OverflowError):
        return None, 0.0
    took = entry.get("time")
    known = isinstance(took, (int, float)) and 0 < took < 3.6e6
    return begin, float(took) / 1e3 if known and took else 0.0


def _call(entry: Entries, plan: Plan) -> Call | None:
    request = entries(entry, "request")
    url = clean(text(request, "url"))
    call = Call(url, clean(text(request, "method") or "GET"))
    if text(entry, "_resourceType") == "websocket" or url.startswith(("ws:", "wss:")):
        plan.notes.add(url[:80], "a WebSocket is not sent")
        return None
    if url.startswith(("data:", "blob:", "about:", "chrome")):
        return None  # never left the browser
    for header in each(request, "headers"):
        _header(clean(text(header, "name")), clean(text(header, "value")), call, plan)
    _body(entries(request, "postData"), call, plan)
    status = entries(entry, "response").get("status")
    if isinstance(status, int) and 400 <= status <= 599:
        call.code = f"200-399,{status}"
        plan.notes.add(
            f"{call.method} {url[:80]}", f"it was answered by {status}, which is good now"
        )
    return call


def _header(name: str, value: str, call: Call, plan: Plan) -> None:
    low = name.lower()
    if low == "cookie":
        plan.notes.add("header Cookie", "not copied: each user keeps the cookies that are set")
    elif low in _OWN or low.startswith((":", "sec-")):
        return
    elif is_secret(name):
        host = urlsplit(call.url).hostname or "" if "[" not in call.url else ""
        secret = Secret(variable(f"{host} {name}"))
        call.headers[name] = secret
        plan.notes.add(f"header {name}", f"its value was not copied: put it into ${secret.env}")
    else:
        call.headers[name] = value


def _body(said: Entries, call: Call, plan: Plan) -> None:
    where = f"{call.method} {call.url[:80]}"
    fields = each(said, "params")
    if any(text(one, "fileName") for one in fields):
        plan.notes.add(where, "its files are not sent")
    call.body = clean(text(said, "text"))
    if not call.body and fields:
        call.body = urlencode([(text(one, "name"), text(one, "value")) for one in fields])
    secret = [name for one in fields if is_secret(name := text(one, "name"))]
    if secret or '"password"' in call.body or "password=" in call.body:
        plan.notes.add(where, "its body holds a secret as it was recorded: put a test value there")
    kind = clean(text(said, "mimeType"))
    if call.body and kind and "content-type" not in {name.lower() for name in call.headers}:
        call.headers["Content-Type"] = kind
