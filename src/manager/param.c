/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lists of typed values. Thread: any, one list at a time. */
#include "manager/param.h"

#include <string.h>

void param_list_done(struct param_list *l)
{
    for (unsigned i = 0; i < l->count; i++)
        if (l->rows[i].type == PARAM_STRING)
            g_free(l->rows[i].s);
    g_free(l->rows);
    *l = (struct param_list){ 0 };
}

static struct param *param_add(struct param_list *l, const char *name, enum param_type type)
{
    if (l->count == l->room) {
        l->room = l->room ? l->room * 2 : 16;
        l->rows = g_renew(struct param, l->rows, l->room);
    }
    struct param *p = &l->rows[l->count++];
    *p = (struct param){ .type = type };
    g_strlcpy(p->name, name, sizeof(p->name));
    return p;
}

void param_int(struct param_list *l, const char *name, int v)
{
    param_add(l, name, PARAM_INT)->i = v;
}

void param_uint(struct param_list *l, const char *name, unsigned v)
{
    param_add(l, name, PARAM_UINT)->u = v;
}

void param_llong(struct param_list *l, const char *name, int64_t v)
{
    param_add(l, name, PARAM_LLONG)->i = v;
}

void param_ullong(struct param_list *l, const char *name, uint64_t v)
{
    param_add(l, name, PARAM_ULLONG)->u = v;
}

void param_double(struct param_list *l, const char *name, double v)
{
    param_add(l, name, PARAM_DOUBLE)->d = v;
}

void param_bool(struct param_list *l, const char *name, bool v)
{
    param_add(l, name, PARAM_BOOL)->u = v;
}

void param_string(struct param_list *l, const char *name, const char *v)
{
    param_add(l, name, PARAM_STRING)->s = g_strdup(v ? v : "");
}

void param_ullong_at(struct param_list *l, uint64_t v, const char *format, ...)
{
    char name[sizeof(((struct param *)0)->name)];
    va_list ap;
    va_start(ap, format);
    g_vsnprintf(name, sizeof(name), format, ap);
    va_end(ap);
    param_ullong(l, name, v);
}

void param_string_at(struct param_list *l, const char *v, const char *format, ...)
{
    char name[sizeof(((struct param *)0)->name)];
    va_list ap;
    va_start(ap, format);
    g_vsnprintf(name, sizeof(name), format, ap);
    va_end(ap);
    param_string(l, name, v);
}

const struct param *param_find(const struct param_list *l, const char *name)
{
    for (unsigned i = 0; i < l->count; i++)
        if (!strcmp(l->rows[i].name, name))
            return &l->rows[i];
    return NULL;
}

static const char *const type_names[] = {
    [PARAM_INT] = "int",       [PARAM_UINT] = "uint",     [PARAM_LLONG] = "llong", [PARAM_ULLONG] = "ullong",
    [PARAM_DOUBLE] = "double", [PARAM_BOOL] = "boolean", [PARAM_STRING] = "string",
};

static bool check_row(const struct param *p, const struct param_rule *rules, GError **error)
{
    const struct param_rule *r = rules;
    while (r->name && strcmp(r->name, p->name) != 0)
        r++;
    if (!r->name)
        return ruche_error(error, MANAGER_ERR_ARGUMENT, "parameter '%s' is not supported", p->name);
    if (r->type != p->type)
        return ruche_error(error, RUCHE_ERR_INVALID, "invalid type '%s' for parameter '%s', expected '%s'",
                           type_names[p->type], p->name, type_names[r->type]);
    return true;
}

bool param_check(const struct param_list *l, const struct param_rule *rules, GError **error)
{
    for (unsigned i = 0; i < l->count; i++) {
        if (!check_row(&l->rows[i], rules, error))
            return false;
        for (unsigned j = 0; j < i; j++)
            if (!strcmp(l->rows[i].name, l->rows[j].name))
                return ruche_error(error, RUCHE_ERR_INVALID, "parameter '%s' is given twice", l->rows[i].name);
    }
    return true;
}
