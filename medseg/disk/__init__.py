"""Files on disk: atomic writing, locks, archives, directory walks, detection of changes, temporary folders."""
