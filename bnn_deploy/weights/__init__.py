"""Files of weights as safetensors: what training ends with, and what export starts from."""
