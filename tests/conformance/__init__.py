"""The conformance suite: what an engine relies on, asked of any OCI runtime's command line."""
