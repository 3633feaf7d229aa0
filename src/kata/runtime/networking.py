"""A sandbox's network once its guest runs: plugging cards, telling the agent, following changes.

    with Network(path, model=settings.internetworking_model, slots=machine.nic_slots) as network:
        vm = driver.start(machine, Bindings(nics=network.fds, ...), options)
        ...                                          # the first call is Configure, as ever
        told = networking.tell(network, vm, client)   # before CreateContainer, in the same write
        told.result()
        networking.follow(network, vm, client, failed)

The rule: the guest is always told the whole network; what it has been told last is what holds.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from kata.errors import KataError
    from kata.hypervisors.interface import Vm
    from kata.network.namespace import Network
    from kata.runtime.rpc import Call, Client

_PLUGGED_S = 30.0  # for a guest to see a card that was plugged


def tell(network: Network, vm: Vm, client: Client) -> Call:
    """Plug what has no wired card, and send the agent the network; its answer is the caller's.

    Raises ``HypervisorError``, or ``Unsupported`` where cards cannot be plugged.
    """
    for slot, tap, vhost in network.unplugged():
        vm.plug_nic(slot, tap, vhost)
    network.close_fds()
    return client.start("UpdateNetwork", network.guest_request())


def follow(
    network: Network, vm: Vm, client: Client, failed: Callable[[KataError], None],
    told: Callable[[], None] = lambda: None,
) -> None:  # fmt: skip
    """Keep the guest's network what the namespace's is, until ``network`` is closed.

    ``failed`` is called, in another thread, with what could not be done; later changes are tried.
    ``told`` is called after each change that the guest was told of.
    """

    def changed(network: Network) -> None:
        tell(network, vm, client).result(_PLUGGED_S)
        told()

    network.watch(changed, failed)
