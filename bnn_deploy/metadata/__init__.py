"""What a model's file says of its images and classes, stored as JSON."""
