"""Storage: plan (pure) and apply: shares, layers, volumes."""
