"""Where the images for a model come from; ``bnn_deploy.datasets`` is the front door."""
