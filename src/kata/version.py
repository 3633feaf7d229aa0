"""The version of the product; the one place besides the project file that says it."""

VERSION = "0.1.0"
