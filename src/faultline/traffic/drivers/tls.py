"""What a client of TLS says and asks, from the options of a load."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from faultline.traffic.driver import CannotBegin


def context(options: Mapping[str, Any]) -> ssl.SSLContext:
    """A context; raises CannotBegin if a file of it cannot be read."""
    try:
        found = ssl.create_default_context(cafile=options["ca"] or None)
        if not options.get("verify", True):
            found.check_hostname = False
            found.verify_mode = ssl.CERT_NONE
        if options["certificate"]:
            password = options["key_password"]
            found.load_cert_chain(options["certificate"], options["key"] or None, password)
    except (OSError, ssl.SSLError) as error:
        raise CannotBegin(f"the certificates cannot be read: {error}") from error
    return found
