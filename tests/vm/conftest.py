"""Tests in virtual machines use the fixtures of ``support.vm``."""

from support.vm import kata, own_images, own_rootfs, prepared, rootfs  # noqa: F401
