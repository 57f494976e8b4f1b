"""The operator: what documents of a cluster mean, asked of the hosts on which it is to happen."""
