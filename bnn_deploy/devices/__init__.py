"""Where bundles run: the machines behind ``--device``."""
