"""A thin shell over the kernel: system calls, mounts, cgroups, processes, terminals, descriptors."""
