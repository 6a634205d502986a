"""Training of binary networks in the papers' steps: recipes, data, the loop, checkpoints and logs; ``runs.train`` is all of it."""
