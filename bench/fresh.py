# SPDX-License-Identifier: GPL-2.0-or-later
"""A file system of its own for each side and round, so that none finds what the one before left: on one that both use, ext4
without a journal passes over the inodes that were freed in the last minutes, one by one, for whoever makes files next."""
import contextlib
import os
import subprocess


@contextlib.contextmanager
def file_system(folder, name, gib=8):
    """The folder of a new ext4 with a journal, on a sparse file below `folder`."""
    image, place = os.path.join(folder, name + ".img"), os.path.join(folder, name)
    with open(image, "wb") as f:
        f.truncate(gib << 30)
    subprocess.run(["mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", image], check=True)
    os.mkdir(place)
    subprocess.run(["mount", "-o", "loop", image, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)
        os.rmdir(place)
        os.unlink(image)
