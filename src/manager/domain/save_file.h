/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files with a machine's saved state: our head, the description, then the stream as the emulator
 * wrote it.
 *
 * Format    One block of 4096 bytes (little endian): magic, version, what the machine did, which
 *           of two slots holds the description, its length and SHA-256; the slots; the stream. A
 *           new description goes into the other slot, then the head into its sector: cut off
 *           anywhere, the file has the old one or the new one.
 * Whole     A file that is being written has no name (or, where the file system cannot do that, a
 *           temporary one) until save_file_commit(): a cut leaves nothing.
 * Trust     Files are hostile: lengths are checked against the file's size and XML_MAX_BYTES.
 * Thread    Any; everything but save_head_*() blocks.
 */
#pragma once

#include "manager/error.h"

#include <stdint.h>
#include <sys/types.h>

#define SAVE_HEAD_BYTES 4096u

enum save_state { SAVE_RUNNING = 1, SAVE_PAUSED = 2 };

struct save_head {
    enum save_state state;
    unsigned slot;       /* 0 or 1 */
    uint32_t slot_bytes; /* room of each */
    uint32_t xml_bytes;
    uint8_t digest[32]; /* of the description */
};
/* Where the stream begins. */
uint64_t save_head_stream(const struct save_head *h);
void save_head_write(const struct save_head *h, uint8_t ret[SAVE_HEAD_BYTES]);
/* -EBADMSG: not one of ours; -EPROTONOSUPPORT: of a version that is not known here; -ERANGE: its
 * numbers cannot be. */
int save_head_read(const uint8_t *data, size_t len, struct save_head *ret);

/* A file that will appear whole at `path`. */
struct save_file {
    int fd;
    char *path, *temporary; /* temporary NULL: it has no name yet */
    uint64_t inode;         /* by which it is known again */
    bool drop_cache;        /* what is written shall not stay in memory */
};
bool save_file_new(const char *path, struct save_file *ret, GError **error);
/* Head and description; the descriptor stands where the stream begins. */
bool save_file_begin(struct save_file *f, const char *xml, enum save_state state, GError **error);
/* What was written so far leaves the page cache. */
void save_file_trim(const struct save_file *f);
/* On the disk, then in its place. */
bool save_file_commit(struct save_file *f, GError **error);
/* Also after commit, which it does not undo. */
void save_file_done(struct save_file *f);

/* Opens one to be read: at the stream, locked against another restore. *ret_xml is the caller's. -1
 * with *error. */
int save_file_open(const char *path, struct save_head *ret, char **ret_xml, GError **error);
bool save_file_set_xml(const char *path, const char *xml, enum save_state state, GError **error);
