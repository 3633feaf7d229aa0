"""Where a runtime gives another answer than a case expects, and why: case id to reason.

The one rule: a case named here must fail; when it passes, the line is out of date and the suite
fails. A reason that begins with "sometimes" is of a race, and that case may pass. A case's id is
its file and its name without "test_": "mounts.slave_propagation".
"""

EARLY = "poststart hooks run at the end of create"
UNCHECKED = "wrong types and missing parts of a config are not looked for"
ANY_NAME = "any id that can be a directory's name is taken"

# this project's runtime: what a virtual machine cannot have
FROM_THE_HOST = "mounts of the host do not travel into a machine"
KATA: dict[str, str] = {
    "commands.ps_as_a_table": "the table is of the guest's processes; as JSON, pids are the host's",
    "exec.exec_terminal_resizes": "sometimes: a new size comes after what is typed next",
    "mounts.changes_on_the_host_are_seen": "sometimes: the guest keeps sizes for a second",
    "mounts.mounts_of_the_host_arrive_by_slave": FROM_THE_HOST,
    "resources.cpuset": "the processors are the host's: where the machine may run",
    "streams.closed_output_is_felt": "sometimes: a write is on its way when the reader goes",
    "streams.descriptors_are_passed_on": "descriptors of the host mean nothing in a machine",
}

# the references, which prove the suite: what runc 1.1.5 and crun 1.8.1, as Debian 12 has them, do
# otherwise by design or by a fault of theirs
_NOT_OURS = "a pipe is the caller's, who gives it to the mapped user"
RUNC: dict[str, str] = {
    "users.exec_opens_its_output": _NOT_OURS,
    # Go's start raises the soft limit of open files to the hard one: runc 4195, mended in 1.1.13
    "exec.filed_limits": "sometimes: an exec's limit of open files is lost in a race",
    "exec.filed_umask": "the mask of a process.json is ignored",
    "hooks.failing_hook_after_the_start": EARLY,
    "hooks.hook_state[poststart-status4]": EARLY,
    "hooks.hooks_of_create": EARLY,
    "hooks.hooks_of_start": EARLY,
}
CRUN: dict[str, str] = {
    "users.exec_opens_its_output": _NOT_OURS,
    "errors.broken_config[args-none]": UNCHECKED,
    "errors.broken_config[args-text]": UNCHECKED,
    "errors.broken_config[cwd-none]": UNCHECKED,
    "errors.broken_config[cwd-relative]": UNCHECKED,
    "errors.broken_config[process]": UNCHECKED,
    "errors.broken_config[gid-none]": UNCHECKED,
    "errors.broken_config[uid-none]": UNCHECKED,
    "errors.broken_config[uid-text]": UNCHECKED,
    "errors.invalid_id[accent]": ANY_NAME,
    "errors.invalid_id[dollar]": ANY_NAME,
    "errors.invalid_id[dots]": ANY_NAME,
    "errors.invalid_id[newline]": ANY_NAME,
    "errors.invalid_id[slash]": ANY_NAME,
    "errors.invalid_id[space]": ANY_NAME,
    "errors.invalid_id[up]": ANY_NAME,
    "exec.exec_env": "--env replaces the container's environment",
    "exec.exec_environment": "a process added by words starts in /",
    "exec.exec_has_the_limits": "the container's limits are not those of what is added",
    "exec.exec_leads_a_session": "no session of its own without a terminal",
    "hooks.hooks_of_start": "sometimes: start does not wait for the container's own hook",
    "hooks.hook_state[startContainer-status3]": "the status is starting, which is none",
    "isolation.namespace_given_twice_is_refused": "it is not noticed",
    "lifecycle.resume_of_running_is_refused": "resuming what runs is no error",
    "lifecycle.state_rootfs": "the path as it stands in the config",
    "mounts.shared_propagation": "the root's propagation is laid over its volumes'",
    "lifecycle.pause_of_paused_is_refused": "pausing what is paused is no error",
    "lifecycle.start_of_paused_is_refused": "what is paused starts, and stays so",
    "resources.update_of_nothing": "no document at all is taken for one without wishes",
    "rootfs.bind_without_a_source": "no source is no path, rather than the bundle's",
    "rights.relative_path_of_a_device": "made in the directory of the call, if it can be",
    "resources.negative_limits_are_none": "a negative limit of processes is an error",
    "resources.update_of_the_quota_on_the_host": "-1 is written as a number without a sign",
    "rights.broken_filter_is_refused[flag]": "unknown flags are ignored",
    "rights.broken_filter_is_refused[notify-by-default]": "accepted without a listener",
    "rights.notify_without_a_listener_is_refused": "accepted without a listener",
    "rights.unknown_kind_of_device_is_refused": "a kind that is none is taken for a character's",
    "rootfs.unknown_root_propagation_is_refused": "unknown words are ignored",
    "signals.unknown_signal_is_refused[SIGNOPE]": "an unknown name is no error",
    "signals.unknown_signal_is_refused[nope]": "an unknown name is no error",
    "suite.groups": "a limit that cannot be set leaves its group",
    "streams.socket_needs_a_terminal": "a console socket without a terminal is ignored",
}

TABLES = {"kata": KATA, "runc": RUNC, "crun": CRUN}

# what a reference says in other words than runc's
WORDING: dict[str, dict[str, tuple[str, ...]]] = {
    "crun": {
        "console": ("tcgetattr",),
        "does not exist": ("No such file or directory",),
        "cannot start an already running container": ("exec.fifo",),
        "stopped": ("is not running",),
        "not stopped": ("is not in `created` or `stopped` state",),
    }
}
