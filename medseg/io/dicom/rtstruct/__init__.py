"""Reading and writing RT Structure Sets."""
