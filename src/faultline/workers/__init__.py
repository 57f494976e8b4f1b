"""Processes that hold an effect for as long as they live.

Each module has `main(spec, ready)`; it runs in a bare interpreter (`python -I -S`), ends by itself
at its deadline or on SIGTERM, and leaves nothing behind when it is killed.
"""
