"""Files on disk: written whole or not at all, locked, unpacked, walked, watched; temporary folders."""
