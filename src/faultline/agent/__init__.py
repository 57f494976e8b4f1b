"""The agent of one host: makes what it suffers equal to what it should suffer."""
