"""A small real service to break: what `./run demo` and the documentation use."""
