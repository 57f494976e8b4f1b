"""A proxy in front of an API server: what one client of it suffers, and nobody else."""
