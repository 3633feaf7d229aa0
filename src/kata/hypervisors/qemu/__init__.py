"""The QEMU driver: arguments (pure), QMP, process."""
