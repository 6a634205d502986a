"""Depthwise binary convolutions: rows of words at once, or field by field."""
