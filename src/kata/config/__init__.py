"""Settings: one table, and everything derived from it; records that never change."""
