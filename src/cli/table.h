/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tables on standard output, colours where a terminal shows them, progress of jobs. */
#pragma once

#include "cli/cli.h"

/* Rows of texts, columns as wide as needed. The first row is the heading. */
struct table {
    GPtrArray *cells; /* texts of all rows, one after another; owned */
    unsigned columns;
    bool tty;
};
void table_init(struct table *t, const struct cli *c, unsigned columns, ...); /* headings */
void table_init_words(struct table *t, const struct cli *c, const char *headings); /* "NAME STATE" */
void table_add(struct table *t, ...);                                          /* as many texts as columns; copied */
void table_print(struct table *t);                                             /* and frees */

/* Prints an answer as JSON; returns 0. */
int print_json(JsonObject *o);
/* "1.5 GiB", "3 d 4 h" in static buffers of which there are four. */
const char *show_size(int64_t bytes);
/* Looks at a job until it has ended, with a line of progress on a terminal; ^C asks it to end. The ended job, or NULL with
 * *error when it failed. */
JsonObject *follow_job(struct cli *c, JsonObject *job, GError **error);
