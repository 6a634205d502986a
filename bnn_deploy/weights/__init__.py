"""Files of weights: those of users in every format, and ours, which training ends with and export starts from."""
