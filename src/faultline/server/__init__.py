"""What `faultline engine --listen` offers to programs of the same host: HTTP with JSON."""
