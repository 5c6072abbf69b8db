"""Models of other programs, read as data and written as bundles."""
