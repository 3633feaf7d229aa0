"""The version of the runtime specification that is written and understood."""

VERSION = "1.2.0"
