"""De-identification by PS3.15, of objects, files and texts."""
