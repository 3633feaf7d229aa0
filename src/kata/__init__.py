"""pykata: containers in virtual machines of their own."""
