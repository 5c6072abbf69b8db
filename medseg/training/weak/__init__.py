"""Label maps from weaker annotations: image-level labels by class activation maps, boxes by colour models."""
