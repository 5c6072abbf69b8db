"""RT Structure Sets, read and written."""
