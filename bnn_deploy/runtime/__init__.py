"""What runs a bundle: the C library and runner that it carries, and the loader for Python."""
