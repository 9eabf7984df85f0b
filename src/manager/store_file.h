/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A file, a link or a removal: prepared beside its place, then put there. No sync in it.
 *
 * Thread    Any; blocks.
 * Owner     The caller embeds it and keeps path and text until the end.
 */
#pragma once

#include "manager/store_record.h"

#include <stdbool.h>
#include <sys/types.h>

#define STORE_TEMP_PREFIX ".ruche-new-"

struct store_file {
    enum store_kind kind;
    const char *path, *text; /* text: of the file or of the link; "" for a removal */
    mode_t mode;
    int64_t time_ns;  /* the date it gets; 0: now */
    char *temp;       /* what stands beside, until it is in its place */
    int64_t old_ns;   /* when that which is replaced was modified; 0: nothing is there */
    bool edited;      /* store_file_carry_out() left it as it is */
    int err;          /* positive errno; 0: no failure yet */
    const char *step; /* what failed */
};

/* Looks at what is there: sets old_ns; err, if it cannot be replaced. */
void store_file_look(struct store_file *f);
/* The same; err also if nothing can be put there as far as can be foreseen: no folder, no right, a
 * full disk. */
void store_file_foresee(struct store_file *f);
/* Looks, and writes the text beside it. Sets err. */
void store_file_prepare(struct store_file *f);
/* The text's name, or the file's removal. Sets err; in any case nothing stays beside. */
void store_file_place(struct store_file *f);
/* What a record of the log says, whose time_ns and old_ns it has: puts it in place, in a folder that
 * is made; or leaves what was changed after the record as it is, and sets `edited`. Sets err. */
void store_file_carry_out(struct store_file *f);
/* Syncs what is prepared (before it is placed), and the folder (after). */
void store_file_sync(struct store_file *f);
void store_file_sync_folder(struct store_file *f);
/* The modification time of what stands at `path` (a link: its own); 0: nothing. */
int64_t store_file_time(const char *path);
