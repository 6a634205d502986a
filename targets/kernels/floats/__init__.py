"""Dense float convolutions and products, for ``passes.tir.tile_convolution``."""
