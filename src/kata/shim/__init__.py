"""containerd's shim API, and nothing but its translation: the core is the room ``runtime``.

The rule: what containerd and CRI-O say is turned into calls of the supervisor here, and its errors
and exits into what they expect; no file outside of this room knows a containerd.
"""
