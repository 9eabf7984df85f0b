/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an image is, as ruche-img says: the only place that asks it and reads its answer.
 *
 * Thread    The loop thread, in a task. Waits for the program.
 * Trust     Images are hostile: another process looks at them. Its answer is read by type and bounded; a text
 *           that is not UTF-8 is no text.
 */
#pragma once

#include "manager/job.h"

#include <glib.h>
#include <stdbool.h>
#include <stdint.h>

#define IMAGE_CHAIN_MAX 200

struct image_info {
    char *filename, *format;
    char *backing;         /* the full name of its backing file; NULL: none */
    char *backing_format;  /* NULL: the image does not say */
    uint64_t virtual_size, actual_size;
    bool encrypted;
};
/* Ends with an entry without format. */
typedef struct image_info *image_info_list;
void image_info_free(struct image_info *list);
G_DEFINE_AUTO_CLEANUP_FREE_FUNC(image_info_list, image_info_free, NULL)

enum { IMAGE_INFO_CHAIN = 1 /* and all behind it */ };
/* format NULL: looked for. *ret_list has at least one image. */
bool image_info_ask(const char *path, const char *format, unsigned flags, int timeout_ms, struct image_info **ret_list,
                    GError **error);
/* The same of one that needs a key: `object` is what --object says of it; may be NULL. */
bool image_info_ask_with(const char *path, const char *format, const char *object, int timeout_ms,
                         struct image_info **ret_list, GError **error);
/* The same within a job, which may be cancelled. */
bool image_info_ask_job(struct job *j, const char *path, struct image_info **ret_list, GError **error);
