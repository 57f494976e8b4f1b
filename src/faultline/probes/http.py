"""The http probe: one request on a connection of its own, as a new client would see the service."""

from __future__ import annotations

import base64
import json
import math
import re
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urljoin, urlsplit

from faultline.api.probe import HttpProbe, Measurement
from faultline.errors import ObserveFailed
from faultline.probes import http2, prober, tls
from faultline.probes.apart import Apart
from faultline.probes.exchange import Answer, Client, exchange
from faultline.probes.limit import Limit, NoAnswer
from faultline.probes.prober import Figures

_KEPT = 1 << 20  # bytes of a body that patterns and paths see
_SHOWN = 16384  # characters of it that expressions see
_FOUND = 100  # values of a JSON path that expressions see
_MOVED = (301, 302, 303, 307, 308)


class Prober(prober.Prober[HttpProbe]):
    """Its value is the time from before the connection to the last byte of the answer, a number of
    its JSON, or the seconds until the certificate expires.
    """

    def __init__(self, spec: HttpProbe, traffic: Figures | None = None) -> None:
        super().__init__(spec, traffic)
        self._apart = Apart(f"JSON of {spec.name}")
        # Here, since it takes longer than many a limit.
        if spec.http2:
            http2.load()
        if spec.json_path:
            _expression(spec.json_path)

    def look(self, limit: Limit) -> Measurement:
        spec = self.spec
        answer, url, seconds = self._ask(limit)
        body = answer.body.decode(errors="replace")
        good, text = _accepts(spec.code, answer.code), f"{answer.code}"
        found: list[Any] = []
        if not good:
            text += f", expected {spec.code}"
        elif spec.pattern and not re.search(spec.pattern, body):
            good, text = False, f"{text} without {spec.pattern!r}: {self.quoted(body)}"
        elif spec.json_path:
            found = self._find(answer, limit)
            good, text = self._compare(found, text)
        result = {
            "code": answer.code,
            "headers": answer.headers,
            "body": self.redacted(body)[:_SHOWN],
            "size": answer.size,
            "version": answer.version,
            "url": url,
            "tls": answer.tls,
            "json": [_shallow(value) for value in found[:_FOUND]],
        }
        value = self._value(good, seconds, answer, found)
        return Measurement(value=value, ok=good, latency=seconds, text=text, result=result)

    # ------------------------------------------------------------------ asking

    def _ask(self, limit: Limit) -> tuple[Answer, str, float]:
        """Ask, and follow redirects as far as that is wanted; the last answer, where it is, and the
        seconds that all of it took.
        """
        spec = self.spec
        password = self.secret(spec.key_password) if spec.key_password else ""
        url, method, body = spec.url, str(spec.method), spec.body.encode()
        headers, seconds = self._headers(), 0.0
        for left in range(spec.redirects, -1, -1):
            answer = exchange(
                url,
                limit,
                method=method,
                headers=headers,
                body=body,
                client=Client(tls.trust(spec, password, spec.verify), spec.http2),
                keep=_KEPT,
            )
            seconds += answer.seconds
            place = answer.headers.get("location", "")
            if not spec.redirects or answer.code not in _MOVED or not place:
                return answer, url, seconds
            if not left:
                break
            before, url = url, _joined(url, place)
            if _server(before) != _server(url):
                headers = self._harmless(headers)
            if answer.code == 303 or (answer.code in (301, 302) and method == "POST"):
                method, body = "HEAD" if method == "HEAD" else "GET", b""
        raise NoAnswer(f"more than {spec.redirects} redirects, the last one to {self.quoted(url)}")

    def _headers(self) -> dict[str, str]:
        spec = self.spec
        headers = {name: self.secret(value) for name, value in spec.headers.items()}
        if spec.bearer:
            headers["Authorization"] = f"Bearer {self.secret(spec.bearer)}"
        if spec.basic:
            pair = f"{spec.basic.user}:{self.secret(spec.basic.password)}"
            code = base64.b64encode(pair.encode()).decode()
            self.hide(code)
            headers["Authorization"] = f"Basic {code}"
        return headers

    def _harmless(self, headers: dict[str, str]) -> dict[str, str]:
        """Without what another server must not see; `Host` was for the first one alone."""
        secret = {name for name, value in self.spec.headers.items() if not isinstance(value, str)}
        secret |= {"authorization", "cookie", "host"}
        return {n: value for n, value in headers.items() if not {n, n.lower()} & secret}

    # ------------------------------------------------------------------ judging

    def _find(self, answer: Answer, limit: Limit) -> list[Any]:
        """What stands at the path; raises NoAnswer if the body is no JSON."""
        if answer.size > len(answer.body):
            raise ObserveFailed(f"the body has {answer.size} bytes; a path sees {_KEPT}")
        try:
            data = json.loads(answer.body)
        except (ValueError, RecursionError) as error:
            shown = self.quoted(answer.body.decode(errors="replace"))
            raise NoAnswer(f"the body is not JSON: {shown}") from error
        return self._apart.run(limit, lambda: _at(self.spec.json_path, data))

    def _compare(self, found: list[Any], text: str) -> tuple[bool, str]:
        path, wanted = self.spec.json_path, self.spec.equals
        if not found:
            return False, f"{text} without anything at {path}"
        seen = [_shallow(value) for value in found[:_FOUND]]
        shown = self.quoted(json.dumps(seen[0] if len(seen) == 1 else seen))
        if wanted is None:
            return True, f"{text}, {path} is {shown}"
        # True is 1 in Python and not in JSON.
        same = all(isinstance(e, bool) == isinstance(wanted, bool) and e == wanted for e in found)
        return same, f"{text}, {path} is {shown}" + ("" if same else f", expected {wanted!r}")

    def _value(self, good: bool, seconds: float, answer: Answer, found: list[Any]) -> float | None:
        match self.spec.measure:
            case "latency":
                return seconds
            case "tlsExpiry":
                return answer.tls.get("expiry")  # None after a redirect to plain HTTP
            case "json":
                if not good and len(found) != 1:
                    return None
                return _number(found, self.spec.json_path)


def _joined(url: str, place: str) -> str:
    try:
        moved = urljoin(url, place)
        if urlsplit(moved).scheme not in ("http", "https"):
            raise NoAnswer(f"a redirect to {prober.quoted(place)}, which is not of HTTP")
    except ValueError as error:
        raise NoAnswer(f"a redirect to {prober.quoted(place)}, which is no address") from error
    return moved


def _server(url: str) -> tuple[str, str, int | None]:
    try:
        parts = urlsplit(url)
        return parts.scheme, parts.hostname or "", parts.port
    except ValueError:
        return "", "", None  # the exchange will say what is wrong with it


@lru_cache(maxsize=256)
def _expression(path: str) -> Any:
    from jsonpath_ng.ext.parser import parse

    return parse(path)


def _at(path: str, data: Any) -> list[Any]:
    try:
        return [found.value for found in _expression(path).find(data)]
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError) as error:
        raise NoAnswer(f"{path} does not fit this body: {type(error).__name__}") from error


def _shallow(value: Any, depth: int = 20) -> Any:
    """A value without what lies too deep in it: documents are not nested without end."""
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value).items()
        return {key: _shallow(each, depth - 1) for key, each in entries} if depth else "..."
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return [_shallow(each, depth - 1) for each in items] if depth else "..."
    return value


def _number(found: list[Any], path: str) -> float:
    """The one number at the path: of a list or an object its length."""
    if len(found) != 1:
        raise ObserveFailed(f"{path} gave {len(found)} values, one is expected")
    value: Any = found[0]
    if isinstance(value, (list, dict)):
        return float(len(cast("list[Any]", value)))
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise NoAnswer(f"{path} is no number: {prober.quoted(str(value))}") from error
    if not math.isfinite(number):
        raise NoAnswer(f"{path} is {number}, not a number to judge")
    return number


def _accepts(codes: str, code: int) -> bool:
    for part in codes.split(","):
        low, _, high = part.partition("-")
        if int(low) <= code <= int(high or low):
            return True
    return False
