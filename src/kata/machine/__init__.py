"""Pure: a virtual machine described in no hypervisor's words."""
