"""Adapters for other libraries, each named after what it adapts and imported by nobody but its user."""
