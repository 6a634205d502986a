"""Opening a model for the compiler, whoever wrote its file."""
