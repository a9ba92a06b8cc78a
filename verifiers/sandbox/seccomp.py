"""The system-call filter of a job: a classic BPF program, built here instead of by libseccomp.

A deny list. Everything that reaches outside the job (sockets, other processes' memory, mounts, namespaces, kernel
facilities with their own attack surface, memory that no limit counts) answers EPERM; `clone3` answers ENOSYS,
because a filter cannot look into its argument struct and C libraries fall back to `clone`.
"""

from __future__ import annotations

import ctypes
import struct

from . import kernel

# name: (x86_64, aarch64); None where the machine has no such call
_DENIED: dict[str, tuple[int | None, int | None]] = {
    "socket": (41, 198), "connect": (42, 203), "accept": (43, 202), "bind": (49, 200), "listen": (50, 201),
    "accept4": (288, 242),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432),
    "fspick": (433, 433), "mount_setattr": (442, 442), "unshare": (272, 97), "setns": (308, 268),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "io_uring_setup": (425, 425), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "io_setup": (206, 0), "io_submit": (209, 2),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "msgget": (68, 186),
    "semget": (64, 190), "mq_open": (240, 180), "fanotify_init": (300, 262), "inotify_init": (253, None),
    "inotify_init1": (294, 26),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "syslog": (103, 116), "quotactl": (179, 60), "settimeofday": (164, 170),
    "clock_settime": (227, 112), "adjtimex": (159, 171), "clock_adjtime": (305, 266), "iopl": (172, None),
    "ioperm": (173, None), "modify_ldt": (154, None), "personality": (135, 92), "vhangup": (153, 58),
    "lookup_dcookie": (212, 18), "move_pages": (279, 239), "migrate_pages": (256, 238), "mbind": (237, 235),
    "sethostname": (170, 161), "setdomainname": (171, 162), "uselib": (134, None), "mlock": (149, 228),
    "mlockall": (151, 230), "landlock_create_ruleset": (444, 444),
}  # fmt: skip
# Where there is no pid namespace a job must not leave its session: the session is how all of it is killed. The calls
# seem to succeed, so that honest daemons and shells run.
_PRETENDED_WITHOUT_PID_NAMESPACE = {"setsid": (112, 157), "setpgid": (109, 154)}
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_CLONE, _CLONE3 = {"x86_64": 56, "aarch64": 220}, 435
_IOCTL = {"x86_64": 16, "aarch64": 29}
_PRLIMIT = {"x86_64": 302, "aarch64": 261}
_SOCKETPAIR = {"x86_64": 53, "aarch64": 199}
_NAMESPACES = 0x7E020000 | 0x00000080  # every CLONE_NEW* flag, CLONE_NEWTIME included
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C

_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _ENOSYS = 1, 38


def supported() -> bool:
    """Whether this machine's system-call numbers are known here."""
    return kernel.machine() in _AUDIT_ARCH


def build(pid_namespace: bool) -> bytes:
    """The filter as an array of `struct sock_filter` (8 bytes each)."""
    machine = kernel.machine()
    column = 0 if machine == "x86_64" else 1
    denied = sorted({number for numbers in _DENIED.values() if (number := numbers[column]) is not None})
    code: list[tuple[int, int, int, int]] = [
        (_LOAD, 0, 0, 4),  # seccomp_data.arch: a 32-bit call would use other numbers
        (_EQUAL, 1, 0, _AUDIT_ARCH[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, 0),  # seccomp_data.nr
    ]
    if machine == "x86_64":  # the x32 ABI: the same calls under other numbers
        code += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    code += [(_EQUAL, 0, 1, _CLONE3), (_RETURN, 0, 0, _ERRNO | _ENOSYS)]
    for number in denied:
        code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ERRNO | _EPERM)]
    for numbers in () if pid_namespace else _PRETENDED_WITHOUT_PID_NAMESPACE.values():
        code += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _ERRNO)]
    low_word = 16 if kernel.little_endian() else 20  # of seccomp_data.args[0]
    code += [
        (_EQUAL, 0, 3, _CLONE[machine]),
        (_LOAD, 0, 0, low_word),
        (_ANY_BIT, 0, 1, _NAMESPACES),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
        (_LOAD, 0, 0, 0),
        # Limits of its own only (pid 0): where there is no pid namespace the fork server is the same user's process.
        (_EQUAL, 0, 4, _PRLIMIT[machine]),
        (_LOAD, 0, 0, low_word),
        (_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
        (_LOAD, 0, 0, 0),
        # A pair of connected streams is what event loops need; a datagram socket of a pair could still name an address.
        (_EQUAL, 0, 4, _SOCKETPAIR[machine]),
        (_LOAD, 0, 0, low_word + 8),
        (_ANY_BIT, 0, 1, 0xE),  # anything but SOCK_STREAM (1) and flags above the low four bits
        (_RETURN, 0, 0, _ERRNO | _EPERM),
        (_LOAD, 0, 0, 0),
        (_EQUAL, 0, 4, _IOCTL[machine]),
        (_LOAD, 0, 0, low_word + 8),  # args[1]: the request
        (_EQUAL, 1, 0, _TIOCSTI),
        (_EQUAL, 0, 1, _TIOCLINUX),
        (_RETURN, 0, 0, _ERRNO | _EPERM),
        (_RETURN, 0, 0, _ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)


def install(program: bytes) -> None:
    """Put the filter on this process and all its descendants. Needs no_new_privs."""
    buffer = ctypes.create_string_buffer(program, len(program))

    class Header(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    header = Header(len(program) // 8, ctypes.addressof(buffer))
    kernel.prctl(22, 2, ctypes.addressof(header))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
