"""Which layers multiply signs with signs, and how they are written as binary ones."""
