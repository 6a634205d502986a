"""The compiler's passes; ``pipeline`` lists them in order."""
