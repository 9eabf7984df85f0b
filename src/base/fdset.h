/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files that somebody else opened for us: a path "/dev/fdset/N" is one of the descriptors of set N.
 *
 * Spec      QEMU's -add-fd, and QMP's add-fd and remove-fd.
 * Owner     The sets own their descriptors; fdset_open() gives copies away.
 * Thread    Any.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#define FDSET_MAX 4096 /* descriptors in all sets */

/* Takes the descriptor over and makes it close-on-exec. `set` -1: a new one. Returns the set, or
 * -errno. */
int fdset_add(int set, int fd);
/* fd -1: all of the set. 0, or -ENOENT. */
int fdset_remove(int set, int fd);
/* open(2), and copies of descriptors for "/dev/fdset/N": of those that can do what `flags` ask for,
 * the one that can do least. -1 with errno. */
int fdset_open(const char *path, int flags, mode_t mode);
bool fdset_is_path(const char *path);
/* Calls fn for each descriptor, in order of sets. */
void fdset_foreach(void (*fn)(int set, int fd, void *opaque), void *opaque);
