"""Probes of clusters, of alerts and of what people report."""
