"""What a run leaves for its reader: one HTML file, one JSON document, one page of terminal text.

Everything here is pure: a `Run` document goes in, text comes out. So a report can be made again
from the stored document years later, and made twice it is the same byte for byte.
"""
