"""The model format, and models that answer."""
