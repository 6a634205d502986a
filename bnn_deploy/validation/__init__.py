"""Does a bundle compute what the model computes: kernel by kernel, layer by layer, and as a whole."""
