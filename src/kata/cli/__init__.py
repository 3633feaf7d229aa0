"""Command lines: grammar as data, one file per verb."""
