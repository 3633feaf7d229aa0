"""A container of containerd's: a bundle whose root file system is mounted when it is created."""

from __future__ import annotations

from kata.runtime.bundle_workload import BundleWorkload

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from kata.runtime.store import ContainerState
    from kata.storage.plan import Directory, Disk
    from kata.storage.sources import Source


class ShimWorkload(BundleWorkload):
    """A bundle with the id that containerd knows the container by."""

    def __init__(
        self, engine_id: str, state: ContainerState, spec: dict[str, Any], data_root: str,
        network: int = -1,
    ) -> None:  # fmt: skip
        super().__init__(state, spec, data_root, network)
        self.engine_id = engine_id
        self.disk: Disk | None = None  # its root file system, where the guest mounts that

    def _root(self) -> tuple[Directory | Disk, list[Source]]:
        return super()._root() if self.disk is None else (self.disk, [])

    def _state_document(self) -> dict[str, Any]:
        return {**super()._state_document(), "id": self.engine_id}
