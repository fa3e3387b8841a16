"""The type of names that were exported with attributes: `NameType.composite_export`."""
