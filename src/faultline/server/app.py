"""The application: its routes, its errors, its OpenAPI document."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from faultline import __version__
from faultline.api import document
from faultline.errors import FaultlineError, InvalidDocument
from faultline.server import about, events, experiments, faults, halts, runs, schedules
from faultline.server.bodies import DOCUMENTED
from faultline.server.host import Host
from faultline.server.problems import MEDIA, NoRoute, Problem

ABOUT = """\
Faults, experiments, schedules and the halt of one host.

Errors are problem documents (RFC 9457) with the `code` and `hint` of the command line; `happened`
says whether anything was changed. Documents may be sent as JSON or YAML.
"""
_REF = "#/components/schemas/{model}"
_PROBLEM = {
    "description": "A problem document: code, message, hint, and whether anything was changed.",
    "content": {
        MEDIA: {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "detail", "code"],
                "properties": {
                    "type": {"type": "string"},
                    "title": {"type": "string"},
                    "status": {"type": "integer"},
                    "detail": {"type": "string"},
                    "code": {"type": "string", "description": "As in the reference of errors."},
                    "message": {"type": "string"},
                    "hint": {"type": "string", "description": "What to do next."},
                    "happened": {"enum": ["nothing", "maybe", "certainly"]},
                    "retry": {"type": "boolean"},
                    "field": {"type": "string"},
                    "expected": {"type": "string", "description": "What the field takes."},
                    "problems": {
                        "type": "array",
                        "items": {"type": "object"},
                        "description": "Each with the path of its field and what is expected.",
                    },
                },
            }
        }
    },
}


def application(host: Host) -> FastAPI:
    """The routes over the runs and faults of a host."""
    app = FastAPI(
        title="Faultline", version=__version__, description=ABOUT,
        openapi_url="/v1/openapi.json", docs_url=None, redoc_url=None,
        redirect_slashes=False, responses={"4XX": _PROBLEM, "5XX": _PROBLEM},
    )  # fmt: skip
    app.state.host = host
    for module in (faults, runs, experiments, schedules, halts, events, about):
        app.include_router(module.routes(host), prefix="/v1")
    app.exception_handlers.update(
        {
            FaultlineError: _told,
            RequestValidationError: _invalid,
            HTTPException: _no_route,
            Exception: _unforeseen,
        }
    )
    app.openapi = lambda: _openapi(app)
    return app


def _answer(problem: Problem) -> Response:
    return Response(
        problem.body(), problem.status, headers=problem.headers, media_type=problem.media
    )


async def _told(_request: Request, error: Any) -> Response:
    return _answer(Problem(error))


async def _invalid(_request: Request, error: Any) -> Response:
    """A parameter of the address that is not what it must be."""
    found = [
        document.Problem(".".join(map(str, one["loc"][1:])), one["msg"], one.get("input"))
        for one in error.errors()
    ]
    wrong = document.invalid_document("the address", found)
    return _answer(Problem(wrong, field=found[0].path, expected=found[0].expected))


async def _no_route(request: Request, error: Any) -> Response:
    what = f"{request.method} {request.url.path}"
    told = NoRoute(f"{what}: {error.detail}", hint="see /v1/openapi.json")
    return _answer(Problem(told, error.status_code))


async def _unforeseen(_request: Request, error: Any) -> Response:
    """Told in full to the log of the engine, where the server writes it, and in a word here."""
    return _answer(Problem(FaultlineError(f"an unforeseen error: {type(error).__name__}")))


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes
        )
        given = [(model, "validation") for model in DOCUMENTED.values()]
        _, more = models_json_schema(given, ref_template=_REF)  # pyright: ignore[reportArgumentType]
        schemas = made.setdefault("components", {}).setdefault("schemas", {})
        for name, schema in more.get("$defs", {}).items():
            schemas.setdefault(name, schema)
        made["components"]["securitySchemes"] = {
            "token": {"type": "http", "scheme": "bearer", "description": "On loopback."}
        }
        made["security"] = [{"token": []}, {}]
        app.openapi_schema = made
    return app.openapi_schema


__all__ = ["InvalidDocument", "application"]
