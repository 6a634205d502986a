"""Opening a model for the compiler, whoever wrote its file, and counting what that choice changes."""
