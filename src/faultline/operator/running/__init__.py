"""Runs, experiments and schedules of a cluster, carried out by the operator that leads."""
