"""What every fault shares: its shape, its registry, and the one life cycle that injects and
recovers.
"""
