"""The API server of a Kubernetes cluster: objects as JSON, of any kind and version."""
