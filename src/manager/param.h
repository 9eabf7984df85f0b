/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lists of named, typed values: statistics, tunables, job results. Front doors turn them into
 * libvirt's typed parameters or JSON.
 *
 * Owner     param_list_done() frees all. Names are copied.
 */
#pragma once

#include "manager/error.h"

#include <stdint.h>

enum param_type { PARAM_INT = 1, PARAM_UINT, PARAM_LLONG, PARAM_ULLONG, PARAM_DOUBLE, PARAM_BOOL, PARAM_STRING };

struct param {
    char name[80]; /* PARAM_NAME_MAX with its end */
    enum param_type type;
    union {
        int64_t i;  /* INT, LLONG */
        uint64_t u; /* UINT, ULLONG, BOOL */
        double d;
        char *s;    /* never NULL in a STRING */
    };
};

struct param_list {
    struct param *rows;
    unsigned count, room;
};

void param_list_done(struct param_list *l);
void param_int(struct param_list *l, const char *name, int v);
void param_uint(struct param_list *l, const char *name, unsigned v);
void param_llong(struct param_list *l, const char *name, int64_t v);
void param_ullong(struct param_list *l, const char *name, uint64_t v);
void param_double(struct param_list *l, const char *name, double v);
void param_bool(struct param_list *l, const char *name, bool v);
void param_string(struct param_list *l, const char *name, const char *v);
/* Names made by a format: "block.%u.rd.reqs". */
void param_ullong_at(struct param_list *l, uint64_t v, const char *format, ...) G_GNUC_PRINTF(3, 4);
void param_string_at(struct param_list *l, const char *v, const char *format, ...) G_GNUC_PRINTF(3, 4);
const struct param *param_find(const struct param_list *l, const char *name);
/* One row for each name a call knows; ends with a row without a name. */
struct param_rule {
    const char *name;
    enum param_type type;
};
/* A list from outside: every name known, at most once, of the rule's type. Else MANAGER_ERR_ARGUMENT. */
bool param_check(const struct param_list *l, const struct param_rule *rules, GError **error);
