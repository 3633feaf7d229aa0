"""Network: plan (pure) and apply."""
