"""The settings table and what is derived from it: TOML, defaults, documentation."""
