"""Sandboxes, containers and processes: the core behind every front end."""
