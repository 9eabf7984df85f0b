/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the steps from a filter to its table of nftables share: filter_compile.c takes in the
 * filters, filter_expand.c puts values in the place of variables, filter_rule.c makes lines of
 * rules, filter_layout.c the table of the lines.
 *
 * Thread    Any.
 * Trust     Filters are hostile: what is made of one is counted.
 */
#pragma once

#include "manager/filter/filter_priv.h"

struct filter_line {
    const char *chain; /* "root", a filter's chain, or filter_ip_chain */
    bool to;           /* the machine; else from it */
    int priority;
    unsigned seq;
    char *text;
    char *
        early; /* instead of it where the kernel can answer a frame to the machine; NULL: the same */
};
struct filter_chain {
    int priority;
    const char *filter; /* who said so */
};
struct filter_work {
    const struct filter_target *t;
    struct filter_program *p;
    GPtrArray *lines;   /* struct filter_line */
    GHashTable *chains; /* names to struct filter_chain */
    const struct filter_def *path[FILTER_DEPTH_MAX];
    unsigned depth, visits;
    const char *bridge; /* the target's, if rules can name it; else NULL */
};
extern const char filter_ip_chain[]; /* no chain of a filter is called so */

/* Takes the texts; `early` may be NULL. */
bool filter_add_line(struct filter_work *w, const char *chain, bool to, int priority, char *text,
                     char *early, GError **error);
/* The lines of one rule whose values are known, by the protocol's rows. */
bool filter_emit_rule(struct filter_work *w, const struct filter_def *d,
                      const struct filter_rule *r, char *const *values, GError **error);
/* The lines of a rule for each combination of its variables' values. */
bool filter_expand(struct filter_work *w, const struct filter_def *d,
                   const struct filter_rule *rule, GHashTable *vars, GError **error);
/* nft's commands for all lines; NULL with *error. */
char *filter_layout(struct filter_work *w, GError **error);
