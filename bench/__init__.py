"""Measures brokers and clients side by side; `make bench` runs it and writes what it found."""
