"""The command line that engines call: flag for flag runc's."""
