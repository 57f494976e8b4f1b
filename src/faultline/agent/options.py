"""What an agent is started with, handed on as one word of its command line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from faultline.agent.child import Programs
from faultline.agent.model import Document
from faultline.kubeapi.plain import Access


@dataclass(frozen=True, slots=True)
class Options:
    """What an agent is started with."""

    node: str
    access: Access
    programs: Programs
    namespace: str = "faultline"  # of its Lease
    lease: float = 40.0  # seconds for which it holds
    renew: float = 10.0  # seconds between two renewals
    doctor: bool = True  # whether it tries which faults work here
    undo: bool = True  # whether everything is undone when it is told to end


def encoded(options: Options) -> str:
    """As one word of a command line."""
    return json.dumps(asdict(options), default=str)


def decoded(text: str) -> Options:
    told: Document = json.loads(text)
    access: Document = told.pop("access")
    certificate = access["certificate"]
    return Options(
        access=Access(
            access["server"],
            Path(access["authority"]) if access["authority"] else None,
            Path(access["token"]) if access["token"] else None,
            (Path(certificate[0]), Path(certificate[1])) if certificate else None,
            access["namespace"],
        ),
        programs=Programs(**told.pop("programs")),
        **told,
    )
