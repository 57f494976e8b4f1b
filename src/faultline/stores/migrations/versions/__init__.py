"""One module for each step of the schema: `UP`, `DOWN`, and what is derived from what was there."""
