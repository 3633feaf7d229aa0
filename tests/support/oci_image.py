"""OCI image layouts made on the spot, to the image specification."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile

_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def layer_of(directory: str) -> bytes:
    """A directory as an uncompressed layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(directory, arcname=".")
    return buffer.getvalue()


def write(path: str, layers: list[bytes], config: dict, tag: str = "latest") -> str:
    """An image layout at ``path`` with these layers and this ``config`` (of the configuration)."""
    blobs = f"{path}/blobs/sha256"
    os.makedirs(blobs)

    def blob(data: bytes, media: str) -> dict:
        digest = hashlib.sha256(data).hexdigest()
        with open(f"{blobs}/{digest}", "wb") as file:
            file.write(data)
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

    rows = [blob(layer, _LAYER) for layer in layers]
    about = {
        "architecture": "amd64", "os": "linux", "config": config,
        "rootfs": {"type": "layers", "diff_ids": [row["digest"] for row in rows]},
    }  # fmt: skip
    manifest = {
        "schemaVersion": 2, "mediaType": _MANIFEST,
        "config": blob(json.dumps(about).encode(), _CONFIG), "layers": rows,
    }  # fmt: skip
    row = blob(json.dumps(manifest).encode(), _MANIFEST)
    row["annotations"] = {"org.opencontainers.image.ref.name": tag}
    for name, content in (
        ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
        ("index.json", {"schemaVersion": 2, "manifests": [row]}),
    ):
        with open(f"{path}/{name}", "w", encoding="utf-8") as file:
            json.dump(content, file)
    return path
