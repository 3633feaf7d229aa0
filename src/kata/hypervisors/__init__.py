"""Hypervisor drivers: a small interface and one room for each."""
