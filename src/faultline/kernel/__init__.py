"""Typed access to the Linux kernel, with the standard library alone.

The keeper undoes faults with this code while memory, disk or network are what the fault attacks, so
nothing here starts a program, resolves a name or imports a third party's package.
"""
