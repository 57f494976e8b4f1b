"""Looking at the targets of a run, second by second, with what every kernel counts anyhow: control
groups, /proc and the files that runtimes and services log to. No monitoring system is needed.
"""
