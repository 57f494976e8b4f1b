"""Load on a target while an experiment runs, and what the clients of that load saw."""
