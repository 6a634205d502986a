"""What the files of a model say of it: its images, its classes, and how its weights came about."""
