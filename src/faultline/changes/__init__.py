"""Reversible primitives, the journal and the keepers. Standard library only."""
