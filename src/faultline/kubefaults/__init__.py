"""Faults of Kubernetes objects, carried out over the API server alone: no agent, no node."""
