"""Pure: runtime-spec values, defaults, validation, seccomp profiles."""
