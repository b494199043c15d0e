"""One file a stage; each reads top to bottom."""
