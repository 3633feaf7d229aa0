"""Host resources of a sandbox: cgroups."""
