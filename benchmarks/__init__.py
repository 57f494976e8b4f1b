"""Figures that the project publishes about itself, with the command that measures each."""
