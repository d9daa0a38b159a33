"""The parts of make.py: one subject a file."""
