"""What the operator answers when the API server asks it: who may ask for what, and faults of
admission.
"""
