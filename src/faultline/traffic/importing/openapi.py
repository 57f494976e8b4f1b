"""An OpenAPI document (3.x): each operation is a scenario of one request, all as often."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from faultline.errors import InvalidDocument
from faultline.traffic.importing.jsontree import Entries, each, entries, items, text
from faultline.traffic.importing.plan import Call, Flow, Plan, Secret, clean, place, variable
from faultline.traffic.importing.schema import Schemas

_METHODS = ("get", "head", "options", "post", "put", "patch", "delete", "trace")
_CHANGING = ("POST", "PUT", "PATCH", "DELETE")


def read(data: Entries, path: Path) -> Plan:
    """The plan in a document; raises InvalidDocument for one of another version."""
    if not text(data, "openapi").startswith("3."):
        version = text(data, "openapi") or text(data, "swagger")
        raise InvalidDocument(
            f"{path} is an OpenAPI document of version {version}; 3.x is read",
            hint="convert it first: https://converter.swagger.io",
        )
    return _Reader(data, path).plan


class _Reader:
    def __init__(self, data: Entries, path: Path) -> None:
        self._data = data
        self._schemas = Schemas(data)
        self.plan = Plan(clean(text(data, "info", "title")) or path.stem, "an OpenAPI document")
        self._notes = self.plan.notes
        self._whole: dict[str, str] = {}  # how what lies in a variable begins
        self._base = self._server(each(data, "servers"))
        for where, said in entries(data, "paths").items():
            self._path(clean(where), self._schemas.resolve(said))
        self._bearer_of_all()
        changing = [f.name for f in self.plan.flows if f.calls[0].method in _CHANGING]
        if changing:
            listed = ", ".join(changing[:5]) + (", ..." if len(changing) > 5 else "")
            self._notes.add("", f"{len(changing)} operations may change data: {listed}")

    def _server(self, servers: list[Entries], base: str = "") -> str:
        if not servers:
            return base or f"http://{place('host')}"
        url = clean(text(servers[0], "url"))
        for name, said in entries(servers[0], "variables").items():
            url = url.replace(f"{{{name}}}", clean(text(said, "default")))
        if len(servers) > 1:
            self._notes.add("servers", f"the first of {len(servers)} is taken: {url}")
        if url.startswith(("http://", "https://")):
            return url.rstrip("/")
        self._notes.add("servers", f"{url or '/'} is not a whole address: write the host")
        return f"http://{place('host')}/{url.strip('/')}".rstrip("/")

    def _path(self, where: str, said: Entries) -> None:
        base = self._server(each(said, "servers"), self._base)
        for method in _METHODS:
            if method in said:
                operation = self._schemas.resolve(said[method])
                if operation.get("deprecated") is True:
                    self._notes.add(f"{method.upper()} {where}", "deprecated; left out")
                    continue
                server = self._server(each(operation, "servers"), base)
                call = self._operation(where, method.upper(), said, operation, server)
                name = clean(text(operation, "operationId")) or f"{method} {where}"
                self.plan.flows.append(Flow(name, [call]))

    def _operation(
        self, where: str, method: str, said: Entries, operation: Entries, server: str
    ) -> Call:
        name = clean(text(operation, "summary") or text(operation, "operationId"))
        call = Call("", method, name[:100])
        given = {
            (text(one, "in"), text(one, "name")): one
            for level in (said, operation)
            for one in map(self._schemas.resolve, items(level, "parameters"))
        }
        query: list[tuple[str, str]] = []
        for (place_of, key), one in given.items():
            if place_of != "path" and one.get("required") is not True:
                continue
            value = self._parameter(key, one, f"{method} {where}")
            if place_of == "path":
                where = where.replace(f"{{{clean(key)}}}", quote(value, safe=""))
            elif place_of == "query":
                query.append((clean(key), value))
            elif place_of == "header":
                call.headers[clean(key)] = value
            elif place_of == "cookie":
                self._notes.add(f"{method} {where}", f"the cookie {key} is not sent")
        if missing := re.findall(r"\{([^{}]+)\}", where):
            self._notes.add(f"{method} {where}", f"no parameter describes {', '.join(missing)}")
            where = re.sub(r"\{[^{}]+\}", "1", where)
        call.url = f"{server}{where}" + (f"?{urlencode(query)}" if query else "")
        self._body(self._schemas.resolve(operation.get("requestBody")), call, f"{method} {where}")
        self._security(operation, call, f"{method} {where}")
        call.code = self._codes(entries(operation, "responses"))
        return call

    def _parameter(self, key: str, said: Entries, where: str) -> str:
        found = self._example(said)
        known = found is not None
        if found is None:
            media = [entries(one) for one in entries(said, "content").values()]
            schema = said.get("schema") or (media[0].get("schema") if media else None)
            found = self._schemas.example(schema)
            known = self._schemas.says(schema)
        if not known:
            self._notes.add(
                where, f"no example of {key}: {json.dumps(found, default=str)[:60]} is sent"
            )
        if isinstance(found, (dict, list)):
            return clean(json.dumps(found, default=str))
        return clean("1" if found is None else text(found))

    def _example(self, said: Entries) -> Any:
        """What is given as an example beside a schema; None if nothing is."""
        if "example" in said:
            return said["example"]
        for one in entries(said, "examples").values():
            return self._schemas.resolve(one).get("value")
        return None

    def _body(self, said: Entries, call: Call, where: str) -> None:
        content = entries(said, "content")
        if not content:
            return
        kinds = list(content)
        kind = next((k for k in kinds if "json" in k), None) or next(
            (k for k in kinds if k == "application/x-www-form-urlencoded"), kinds[0]
        )
        media = entries(content, kind)
        value = self._example(media)
        if value is None:
            value = self._schemas.example(media.get("schema"))
        if "json" in kind:
            call.body = clean(json.dumps(value, ensure_ascii=False, default=str))
        elif kind == "application/x-www-form-urlencoded":
            fields = {name: text(each_one) for name, each_one in entries(value).items()}
            call.body = clean(urlencode(fields))
        elif isinstance(value, str):
            call.body = clean(value)
        else:
            self._notes.add(where, f"a body of the kind {clean(kind)} is not made")
            return
        call.headers["Content-Type"] = clean(kind)

    def _codes(self, responses: Entries) -> str:
        found: list[str] = []
        for code in responses:
            if re.fullmatch(r"[23]\d\d", str(code)):
                found.append(str(code))
            elif re.fullmatch(r"[23]XX", str(code), re.IGNORECASE):
                found.append(f"{str(code)[0]}00-{str(code)[0]}99")
        return ",".join(sorted(set(found)))

    def _security(self, operation: Entries, call: Call, where: str) -> None:
        """The first way that is enough; its secrets by reference."""
        ways = operation.get("security", self._data.get("security"))
        wanted = each(ways)
        if not wanted or {} in wanted:
            return
        for name in wanted[0]:
            scheme = self._schemas.resolve(
                entries(self._data, "components", "securitySchemes").get(name)
            )
            kind = text(scheme, "type").lower()
            header = "Authorization"
            if kind == "apikey":
                if text(scheme, "in") != "header":
                    place_of = text(scheme, "in")
                    self._notes.add(where, f"its key {name} in the {place_of} is not sent")
                    continue
                header = clean(text(scheme, "name"))
            elif kind not in ("http", "oauth2", "openidconnect"):
                self._notes.add(where, f"the security scheme {name} is not understood")
                continue
            call.headers[header] = secret = Secret(variable(clean(name)))
            if kind != "apikey":
                basic = text(scheme, "scheme").lower() == "basic"
                self._whole[secret.env] = "Basic" if basic else "Bearer"

    def _bearer_of_all(self) -> None:
        """A token that every operation wants is said once; then it is the token alone."""
        calls = [call for flow in self.plan.flows for call in flow.calls]
        found = {call.headers.get("Authorization") for call in calls}
        only = found.pop() if len(found) == 1 else None
        if isinstance(only, Secret) and self._whole[only.env] == "Bearer":
            self.plan.bearer = only
            del self._whole[only.env]
            for call in calls:
                del call.headers["Authorization"]
        secrets = {v.env for call in calls for v in call.headers.values() if isinstance(v, Secret)}
        for name in sorted(secrets | ({only.env} if isinstance(only, Secret) else set())):
            form = (
                f": the whole header, as `{self._whole[name]} ...`" if name in self._whole else ""
            )
            self._notes.add("security", f"put the secret into ${name}{form}")
