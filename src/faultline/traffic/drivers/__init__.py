"""One module per protocol, each over its best client library, imported by the generator alone."""
