"""The command line: click groups that load what a command needs, when it is used."""
