"""Which values are binary: activations recognised by what they compute."""
