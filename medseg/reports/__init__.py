"""Reports a person can look at, in one file that works offline."""
