"""The guest kernel's command line, as data.

The one rule: every word says why it is there. Source: the kernel's
Documentation/admin-guide/kernel-parameters.txt.
"""

from __future__ import annotations

_ALWAYS = (
    "console=ttyS0",  # the supervisor keeps the end of it
    "quiet",  # every line is slow under emulation; warnings and worse are still printed
    "panic=-1",  # a dead kernel or agent ends the VMM, which is told not to reboot
    "reboot=t",
    "cgroup_no_v1=all",
    "random.trust_cpu=on",  # for the boot itself; each start reseeds with the host's entropy
    "tsc=reliable",  # no watchdog of the clock source: a clone's clock stands still while frozen
    "memhp_default_state=online",  # memory that is plugged is used at once
    # room for plugged memory looks like addresses above 4 GiB, for which the kernel would set
    # 64 MiB aside; every device here takes 64-bit addresses
    "swiotlb=noforce",
    # a machine is smaller than a host: what asks for much and uses little is not refused for that
    "sysctl.vm.overcommit_memory=1",
    "nowatchdog",  # nor of lockups, which a paused or starved guest would report
    "rcupdate.rcu_expedited=1",
    "8250.nr_uarts=1",
    "i8042.nokbd",
    "i8042.noaux",
    "audit=0",
    "cryptomgr.notests",  # the self-tests of ciphers are nearly half of a boot's instructions
    "lsm=landlock,yama",  # the others have no policy here and cost every system call a little
    "net.ifnames=0",
)
_BY_ACCELERATOR = {
    # what guards against side channels of a processor means nothing to a translator
    # and asking ACPI for a card's interrupt line, which message-signalled interrupts leave unused,
    # interprets a loop of its: 87 million instructions for each device, wired or plugged
    "tcg": ("mitigations=off", "no_timer_check", "acpi=noirq"),
    "kvm": ("no_timer_check",),
}


# a translator executes "rep movsb" byte by byte, and the guest would use it for every copy
_CPU_MODELS = {"tcg": "max,-erms,-fsrm"}


def cpu_model(accelerator: str) -> str:
    """The processor that a guest gets under an accelerator, in QEMU's words."""
    return _CPU_MODELS.get(accelerator, "max")


def command_line(accelerator: str, extra: str = "") -> str:
    """The words for an accelerator, then the configuration's own."""
    words = (*_ALWAYS, *_BY_ACCELERATOR.get(accelerator, ()))
    return " ".join((*words, extra)).strip()
