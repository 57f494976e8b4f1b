"""Where documents live: one protocol, several stores."""
