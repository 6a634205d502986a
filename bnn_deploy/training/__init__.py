"""Training of binary networks in the papers' steps: recipes, data, the loop, checkpoints and logs."""
