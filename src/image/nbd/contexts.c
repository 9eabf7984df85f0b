/* SPDX-License-Identifier: GPL-2.0-or-later */
/* NBD server: which meta contexts there are, and which ones a client asks for.
 *
 * Spec      NBD protocol, NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT; QEMU's
 *           doc/interop/nbd for "qemu:".
 * Trust     The client's list of queries is walked once for each context that we have: 66 at most.
 */
#include "image/nbd/server_priv.h"

/* The queries of an option, all inside its data. */
struct queries {
    struct cur at; /* the first one */
    uint32_t count;
};

static bool is_asked(const struct queries *q, const char *context, bool listing)
{
    struct cur c = q->at;
    if (!q->count)
        return listing;
    for (uint32_t i = 0; i < q->count; i++) {
        uint32_t len = cur_be32(&c);
        const uint8_t *p = cur_take(&c, len);
        if (p && nbd_query_matches(p, len, context, listing))
            return true;
    }
    return false;
}

static bool reply_context(struct nbd_client *c, const struct queries *q, uint32_t id,
                          const char *context)
{
    bool listing = c->head.option == NBD_OPT_LIST_META_CONTEXT;
    if (!is_asked(q, context, listing))
        return false;
    size_t len = strlen(context);
    g_autofree uint8_t *data = g_malloc(4 + len);
    nbd_put_be32(data, listing ? 0 : id);
    memcpy(data + 4, context, len);
    nbd_reply_option(c, NBD_REP_META_CONTEXT, data, 4 + len);
    return !listing;
}

/* All the queries lie inside the data, and nothing behind them. */
static bool parse_queries(struct nbd_client *c, char **ret_name, struct queries *ret)
{
    struct cur cur = cur_of(c->option, c->head.len);
    nbd_take_text(&cur, cur_be32(&cur), ret_name);
    ret->count = cur_be32(&cur);
    ret->at = cur;
    for (uint32_t i = 0; i < ret->count && !cur.bad; i++) {
        uint32_t len = cur_be32(&cur);
        if (len > NBD_NAME_MAX)
            cur.bad = true;
        cur_take(&cur, len);
    }
    return !cur.bad && !cur.left;
}

void nbd_handle_contexts(struct nbd_client *c)
{
    g_autofree char *name = NULL;
    struct queries q;
    bool set = c->head.option == NBD_OPT_SET_META_CONTEXT;
    if (set)
        c->contexts = (struct nbd_contexts){ 0 };
    if (!c->structured) {
        nbd_refuse_option(c, NBD_REP_ERR_INVALID, "meta contexts need structured replies");
        return;
    }
    if (!parse_queries(c, &name, &q)) {
        nbd_refuse_option(c, NBD_REP_ERR_INVALID, "the option's data has a wrong length");
        return;
    }
    const struct nbd_export *e = nbd_server_find(c->server, name);
    if (!e) {
        nbd_refuse_option(c, NBD_REP_ERR_UNKNOWN, "there is no export of that name");
        return;
    }
    struct nbd_contexts asked = { .export = (struct nbd_export *)e };
    asked.base = reply_context(c, &q, CONTEXT_BASE, NBD_CONTEXT_BASE);
    asked.depth = e->allocation_depth && reply_context(c, &q, CONTEXT_DEPTH, NBD_CONTEXT_DEPTH);
    for (unsigned i = 0; i < e->bitmap_count; i++) {
        if (reply_context(c, &q, CONTEXT_BITMAP + i, e->bitmaps[i].context))
            asked.bitmaps |= 1ULL << i;
    }
    if (set)
        c->contexts = asked;
    nbd_reply_option(c, NBD_REP_ACK, NULL, 0);
}
