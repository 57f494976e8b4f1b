"""Where faults act: the host itself. Standard library only."""
