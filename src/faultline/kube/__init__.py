"""Kubernetes: custom resources made from the models."""
