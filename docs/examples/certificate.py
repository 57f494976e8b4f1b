"""Faults of certificates."""

import os
from typing import Annotated

from faultline.api.params import Params
from faultline.api.quantities import Flag
from faultline.changes.model import Change, Record
from faultline.injection.model import Ending, Fault
from faultline.injection.reading import Effect, Reading
from faultline.places.model import Place


class MissingParams(Params):
    path: Annotated[str, Flag("p")]
    """The file of the certificate."""


class CertificateMissing(Fault[MissingParams]):
    """The file of a certificate is not there when a program opens it."""

    id = "certificate.missing"
    ending = Ending.KEEPER
    does = "Renames the file to a name that carries the mark of the fault, in the same folder."
    cannot = "Programs that read the certificate before do not notice."
    measures = "Looks whether the name can still be opened."
    restores = "The same file under its name, unless another one has taken it meanwhile."
    example = {"path": "/etc/ssl/private/service.pem"}

    def plan(self, place: Place, params: MissingParams) -> list[Change]:
        return [Change("file_moved", {"path": params.path, "to": ""})]

    def observe(self, place: Place, params: MissingParams, record: Record) -> Reading:
        there = os.path.exists(params.path)
        effect = Effect.INEFFECTIVE if there else Effect.EFFECTIVE
        return Reading(effect, "no file", "a file" if there else "no file", "looked for its name")
