"""The fault families: one module each, and nothing else in this package."""
