"""Floats to bits, and words of bits to other pixels."""
