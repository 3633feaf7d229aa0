"""Pure: OCI configuration and state, Docker's defaults and option syntax, seccomp profiles."""
