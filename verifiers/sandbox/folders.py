"""Folders a job filled: measured and emptied whatever their depth, which the job chose. Nothing recurses here."""

from __future__ import annotations

import contextlib
import os
import stat

_ENDLESS = 1 << 62


def empty_folder(path: str) -> None:
    """Remove everything below `path`. No process of the job may be left.

    Folders inside a folder are first moved up to `path`, so that no name is ever longer than two steps.
    """
    top = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    number = 0
    try:
        while names := os.listdir(top):
            for name in names:
                if not stat.S_ISDIR(os.lstat(name, dir_fd=top).st_mode):
                    os.unlink(name, dir_fd=top)
                    continue
                with contextlib.suppress(PermissionError):  # root may not own it, and needs no leave
                    os.chmod(name, 0o700, dir_fd=top)
                folder = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=top)
                try:
                    number = _take_out(folder, top, number)
                finally:
                    os.close(folder)
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)


def _take_out(folder: int, top: int, number: int) -> int:
    """Unlink the files of a folder, move its folders to `top` under fresh names. Returns the last number used."""
    for name in os.listdir(folder):
        if not stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
            os.unlink(name, dir_fd=folder)
            continue
        with contextlib.suppress(PermissionError):
            os.chmod(name, 0o700, dir_fd=folder)  # moving a folder writes to it
        number += 1
        while _there(top, f".moved-{number}"):
            number += 1
        os.rename(name, f".moved-{number}", src_dir_fd=folder, dst_dir_fd=top)
    return number


def _there(top: int, name: str) -> bool:
    try:
        os.lstat(name, dir_fd=top)
    except OSError:
        return False
    return True


def remove_folder(path: str) -> None:
    """Remove `path` and everything below it; what cannot be removed stays."""
    with contextlib.suppress(OSError):
        empty_folder(path)
        os.rmdir(path)


def folder_size(path: str, max_entries: int) -> int:
    """Bytes below `path`; more than `max_entries` entries, or a path too long to look at, count as endless."""
    total = count = 0
    waiting = [path]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    count += 1
                    if count > max_entries:
                        return _ENDLESS
                    with contextlib.suppress(FileNotFoundError, PermissionError):
                        total += entry.stat(follow_symlinks=False).st_blocks * 512
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            continue  # gone or closed meanwhile
        except OSError:
            return _ENDLESS
    return total
