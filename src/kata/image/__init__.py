"""Guest images and OCI images: building, unpacking, storing."""
