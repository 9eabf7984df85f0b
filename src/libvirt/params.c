/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Lists of parameters over the wire. Thread: any. Trust: lists that come in are the peer's. */
#include "libvirt/params.h"

#include <string.h>

static void to_wire(struct param *p, struct wire_param *w)
{
    w->field = g_strdup(p->name);
    w->type = p->type;
    switch (p->type) {
    case PARAM_INT:
        w->i = (int32_t)p->i;
        break;
    case PARAM_UINT:
        w->u = (uint32_t)p->u;
        break;
    case PARAM_LLONG:
        w->l = p->i;
        break;
    case PARAM_ULLONG:
        w->ul = p->u;
        break;
    case PARAM_DOUBLE:
        w->d = p->d;
        break;
    case PARAM_BOOL:
        w->b = p->u != 0;
        break;
    case PARAM_STRING:
        w->s = g_steal_pointer(&p->s);
        break;
    }
}

void params_to_wire(struct param_list *l, struct xdr_array *ret)
{
    struct wire_param *w = g_new0(struct wire_param, MAX(l->count, 1));
    for (unsigned i = 0; i < l->count; i++)
        to_wire(&l->rows[i], &w[i]);
    *ret = (struct xdr_array){.count = l->count, .items = w};
    param_list_done(l);
}

static void add(struct param_list *l, const struct wire_param *w)
{
    switch (w->type) {
    case PARAM_INT:
        param_int(l, w->field, w->i);
        break;
    case PARAM_UINT:
        param_uint(l, w->field, w->u);
        break;
    case PARAM_LLONG:
        param_llong(l, w->field, w->l);
        break;
    case PARAM_ULLONG:
        param_ullong(l, w->field, w->ul);
        break;
    case PARAM_DOUBLE:
        param_double(l, w->field, w->d);
        break;
    case PARAM_BOOL:
        param_bool(l, w->field, w->b);
        break;
    default: /* the union's table has let no other type in */
        param_string(l, w->field, w->s);
        break;
    }
}

bool params_from_wire(const struct xdr_array *a, struct param_list *ret, GError **error)
{
    const struct wire_param *w = a->items;
    for (uint32_t i = 0; i < a->count; i++) {
        if (strlen(w[i].field) >= sizeof(((struct param *)0)->name)) {
            param_list_done(ret);
            return ruche_error(error, RUCHE_ERR_INVALID,
                               "the name of a parameter is longer than %zu bytes: '%.40s...'",
                               sizeof(((struct param *)0)->name) - 1, w[i].field);
        }
        add(ret, &w[i]);
    }
    return true;
}

void params_answer(struct param_list *l, int32_t room, struct xdr_array *ret, int32_t *ret_count)
{
    *ret_count = (int32_t)l->count;
    if (room <= 0) {
        param_list_done(l);
        return;
    }
    struct wire_param *w = g_new0(struct wire_param, MAX(l->count, 1));
    uint32_t n = MIN(l->count, (unsigned)room);
    for (uint32_t i = 0; i < n; i++)
        to_wire(&l->rows[i], &w[i]);
    *ret = (struct xdr_array){.count = n, .items = w};
    *ret_count = (int32_t)n;
    param_list_done(l);
}
