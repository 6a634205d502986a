"""Where the images for a model come from; ``open_dataset`` is the front door."""
