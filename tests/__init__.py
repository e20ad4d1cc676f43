"""Tests that are written in Python; a package, so that no other one of this name is taken."""
