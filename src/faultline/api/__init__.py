"""The resources: documents that mean the same on one host, on a server and in Kubernetes."""
