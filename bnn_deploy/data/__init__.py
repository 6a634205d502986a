"""Where the images for a model come from; ``datasets`` is the front door."""
