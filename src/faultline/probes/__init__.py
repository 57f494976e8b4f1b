"""Measurements with an expectation, one module per type.

A module is loaded when a probe of its type begins: a command that measures nothing pays nothing.
"""
