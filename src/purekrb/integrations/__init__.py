"""Adapters for other libraries, one module for each. Only their users import them."""
