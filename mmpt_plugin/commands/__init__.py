"""Command lines that need several parts of the package."""
