"""containerd with our shim: what runc does there, asked of both."""
