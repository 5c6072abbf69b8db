"""Many studies in one go: find, read ahead, predict, write behind, and a ledger of what became of each."""
