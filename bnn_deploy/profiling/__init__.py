"""What is said about the speed of a bundle: measured on boards, kept as JSON, compared with another run."""
