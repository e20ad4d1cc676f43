"""The command line: one room for each command, joined in `app`."""
