"""A thin shell over the kernel: system calls, mounts, groups, processes, terminals, descriptors."""
