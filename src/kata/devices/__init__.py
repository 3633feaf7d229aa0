"""Devices: plan (pure) and apply."""
