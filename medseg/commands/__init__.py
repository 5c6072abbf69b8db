"""What commands do beyond a single call of another part of medseg."""
