"""Load tools of others: run as argument lists, their output read as figures."""
