/* SPDX-License-Identifier: GPL-2.0-or-later */
/* NBD server: the handshake with one client, from its connection to its first request.
 *
 * Spec      NBD protocol, "Handshake" and "Option types".
 * Thread    The server's; a deadline shuts the channel down (server.c), which bounds everything
 *           here in time.
 * Trust     The client: an option's data is capped, parsed by a bounded cursor, and must be used up
 *           exactly. The replies to one option are made before any of them is sent: no export is
 *           looked at again after a wait.
 */
#include "image/nbd/server_priv.h"

#include "base/log.h"
#include "image/authz.h"

#include <errno.h>

/* What follows an option. */
enum next { NEXT_OPTION, NEXT_SERVE, NEXT_HANG_UP, NEXT_TLS };

void nbd_reply_option(struct nbd_client *c, uint32_t type, const void *data, size_t len)
{
    uint8_t head[NBD_OPTION_REPLY_BYTES];
    nbd_pack_option_reply(head, c->head.option, type, (uint32_t)len);
    g_byte_array_append(c->out, head, sizeof(head));
    if (len)
        g_byte_array_append(c->out, data, (guint)len);
}

void nbd_refuse_option(struct nbd_client *c, uint32_t type, const char *text)
{
    g_byte_array_set_size(c->out, 0);
    nbd_reply_option(c, type, text, strlen(text));
}

static int flush_replies(struct nbd_client *c)
{
    int rc = channel_send_flat(&c->ch, c->out->data, c->out->len);
    g_byte_array_set_size(c->out, 0);
    return rc;
}

static uint16_t export_flags(const struct nbd_client *c, const struct nbd_export *e)
{
    /* All clients share one node: what one has written and flushed, all see. */
    uint16_t flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                     NBD_FLAG_CAN_MULTI_CONN | NBD_FLAG_SEND_CACHE;
    flags |= e->writable ? NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO
                         : NBD_FLAG_READ_ONLY;
    return flags | (c->structured ? NBD_FLAG_SEND_DF : 0);
}

static void let_in(struct nbd_client *c, struct nbd_export *e)
{
    c->export = e;
    e->clients++;
    if (c->contexts.export != e)
        c->contexts = (struct nbd_contexts){ 0 };
}

/* --- options --- */

static enum next on_list(struct nbd_client *c)
{
    for (const struct nbd_export *e = c->server->exports; e; e = e->next) {
        if (e->closing)
            continue;
        size_t name = strlen(e->name), text = e->description ? strlen(e->description) : 0;
        g_autofree uint8_t *data = g_malloc(4 + name + text);
        nbd_put_be32(data, (uint32_t)name);
        memcpy(data + 4, e->name, name);
        if (text)
            memcpy(data + 4 + name, e->description, text);
        nbd_reply_option(c, NBD_REP_SERVER, data, 4 + name + text);
    }
    nbd_reply_option(c, NBD_REP_ACK, NULL, 0);
    return NEXT_OPTION;
}

static enum next on_abort(struct nbd_client *c)
{
    nbd_reply_option(c, NBD_REP_ACK, NULL, 0);
    return NEXT_HANG_UP;
}

static enum next on_starttls(struct nbd_client *c)
{
    if (!c->server->tls)
        nbd_refuse_option(c, NBD_REP_ERR_POLICY, "this server has no TLS credentials");
    else if (c->tls_done)
        nbd_refuse_option(c, NBD_REP_ERR_INVALID, "TLS has begun already");
    else
        nbd_reply_option(c, NBD_REP_ACK, NULL, 0);
    return c->server->tls && !c->tls_done ? NEXT_TLS : NEXT_OPTION;
}

static enum next on_structured_reply(struct nbd_client *c)
{
    c->structured = true;
    nbd_reply_option(c, NBD_REP_ACK, NULL, 0);
    return NEXT_OPTION;
}

static enum next on_contexts(struct nbd_client *c)
{
    nbd_handle_contexts(c);
    return NEXT_OPTION;
}

static void reply_text(struct nbd_client *c, uint16_t info, const char *text)
{
    size_t len = strlen(text);
    g_autofree uint8_t *data = g_malloc(2 + len);
    nbd_put_be16(data, info);
    memcpy(data + 2, text, len);
    nbd_reply_option(c, NBD_REP_INFO, data, 2 + len);
}

static void reply_infos(struct nbd_client *c, const struct nbd_export *e, uint32_t asked)
{
    uint8_t data[14];
    if (asked & 1 << NBD_INFO_NAME)
        reply_text(c, NBD_INFO_NAME, e->name);
    if ((asked & 1 << NBD_INFO_DESCRIPTION) && e->description)
        reply_text(c, NBD_INFO_DESCRIPTION, e->description);
    if (asked & 1 << NBD_INFO_BLOCK_SIZE) {
        nbd_put_be16(data, NBD_INFO_BLOCK_SIZE);
        nbd_put_be32(data + 2, 1);
        nbd_put_be32(data + 6, e->preferred_block);
        nbd_put_be32(data + 10, NBD_PAYLOAD_MAX);
        nbd_reply_option(c, NBD_REP_INFO, data, 14);
    }
    nbd_put_be16(data, NBD_INFO_EXPORT);
    nbd_put_be64(data + 2, e->size_bytes);
    nbd_put_be16(data + 10, export_flags(c, e));
    nbd_reply_option(c, NBD_REP_INFO, data, 12);
    nbd_reply_option(c, NBD_REP_ACK, NULL, 0);
}

/* INFO and GO */
static enum next on_go(struct nbd_client *c)
{
    struct cur cur = cur_of(c->option, c->head.len);
    g_autofree char *name = NULL;
    nbd_take_text(&cur, cur_be32(&cur), &name);
    uint16_t count = cur_be16(&cur);
    uint32_t asked = 0;
    for (unsigned i = 0; i < count && !cur.bad; i++) {
        uint16_t info = cur_be16(&cur);
        asked |= info < 32 ? 1U << info : 0;
    }
    if (cur.bad || cur.left) {
        nbd_refuse_option(c, NBD_REP_ERR_INVALID, "the option's data has a wrong length");
        return NEXT_OPTION;
    }
    struct nbd_export *e = nbd_server_find(c->server, name);
    if (!e) {
        nbd_refuse_option(c, NBD_REP_ERR_UNKNOWN, "there is no export of that name");
        return NEXT_OPTION;
    }
    reply_infos(c, e, asked);
    if (c->head.option == NBD_OPT_INFO)
        return NEXT_OPTION;
    let_in(c, e);
    return NEXT_SERVE;
}

static enum next on_export_name(struct nbd_client *c)
{
    struct cur cur = cur_of(c->option, c->head.len);
    g_autofree char *name = NULL;
    if (nbd_take_text(&cur, c->head.len, &name) < 0)
        return NEXT_HANG_UP;
    struct nbd_export *e = nbd_server_find(c->server, name);
    if (!e)
        return NEXT_HANG_UP; /* the option has no other way to say no */
    uint8_t data[10 + NBD_ZERO_PAD_BYTES] = { 0 };
    nbd_put_be64(data, e->size_bytes);
    nbd_put_be16(data + 8, export_flags(c, e));
    g_byte_array_append(c->out, data, c->no_zeroes ? 10 : sizeof(data));
    let_in(c, e);
    return NEXT_SERVE;
}

static const struct option_row {
    enum next (*fn)(struct nbd_client *c);
    bool has_data, before_tls;
} option_rows[] = {
    [NBD_OPT_EXPORT_NAME] = { on_export_name, true, false },
    [NBD_OPT_ABORT] = { on_abort, true, true },
    [NBD_OPT_LIST] = { on_list, false, false },
    [NBD_OPT_STARTTLS] = { on_starttls, false, true },
    [NBD_OPT_INFO] = { on_go, true, false },
    [NBD_OPT_GO] = { on_go, true, false },
    [NBD_OPT_STRUCTURED_REPLY] = { on_structured_reply, false, false },
    [NBD_OPT_LIST_META_CONTEXT] = { on_contexts, true, false },
    [NBD_OPT_SET_META_CONTEXT] = { on_contexts, true, false },
};

static enum next handle_option(struct nbd_client *c)
{
    const struct option_row *row =
        c->head.option < ARRAY_COUNT(option_rows) ? &option_rows[c->head.option] : NULL;
    if (c->server->tls && !c->tls_done && !(row && row->before_tls)) {
        if (c->head.option == NBD_OPT_EXPORT_NAME)
            return NEXT_HANG_UP;
        nbd_refuse_option(c, NBD_REP_ERR_TLS_REQD,
                          "this server requires TLS: begin with NBD_OPT_STARTTLS");
        return NEXT_OPTION;
    }
    if (!row || !row->fn) {
        nbd_refuse_option(c, NBD_REP_ERR_UNSUP, "this option is not known here");
        return NEXT_OPTION;
    }
    if (!row->has_data && c->head.len) {
        nbd_refuse_option(c, NBD_REP_ERR_INVALID, "this option takes no data");
        return NEXT_OPTION;
    }
    return row->fn(c);
}

static int read_option(struct nbd_client *c, bool *ret_too_big)
{
    uint8_t head[NBD_OPTION_BYTES];
    int rc = channel_read(&c->ch, head, sizeof(head));
    if (rc < 0 || (rc = nbd_parse_option(head, &c->head)) < 0)
        return rc;
    *ret_too_big = c->head.len > NBD_OPTION_DATA_MAX;
    return *ret_too_big ? channel_skip(&c->ch, c->head.len)
                        : channel_read(&c->ch, c->option, c->head.len);
}

static int greet(struct nbd_client *c)
{
    uint8_t hello[NBD_HELLO_BYTES], answer[4];
    nbd_pack_hello(hello, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    int rc = channel_send_flat(&c->ch, hello, sizeof(hello));
    if (rc == 0)
        rc = channel_read(&c->ch, answer, sizeof(answer));
    if (rc < 0)
        return rc;
    struct cur cur = cur_of(answer, sizeof(answer));
    uint32_t flags = cur_be32(&cur);
    c->no_zeroes = flags & NBD_NO_ZEROES;
    return flags & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES) ? -EBADMSG : 0;
}

static bool is_authorized(struct nbd_client *c)
{
    if (!c->server->tls_authz)
        return true;
    g_autofree char *name = tls_session_peer(c->ch.tls);
    if (authz_allows(c->server->tls_authz, name))
        return true;
    log_info("NBD server: '%s' does not let '%s' in", c->server->tls_authz, name ? name : "(no name)");
    return false;
}

static bool begin_tls(struct nbd_client *c)
{
    c->tls_done = true;
    return channel_start_tls(&c->ch, c->server->tls, NULL, NULL) && is_authorized(c);
}

static bool converse(struct nbd_client *c)
{
    if (greet(c) < 0)
        return false;
    for (;;) {
        bool too_big = false;
        if (read_option(c, &too_big) < 0)
            return false;
        enum next next = NEXT_OPTION;
        if (too_big && c->head.option == NBD_OPT_EXPORT_NAME)
            return false;
        if (too_big)
            nbd_refuse_option(c, NBD_REP_ERR_TOO_BIG,
                              "the option's data is over the limit of 64 KiB");
        else
            next = handle_option(c);
        if (flush_replies(c) < 0 || next == NEXT_HANG_UP)
            return false;
        if (next == NEXT_SERVE)
            return true;
        if (next == NEXT_TLS && !begin_tls(c))
            return false;
    }
}

bool nbd_handshake(struct nbd_client *c)
{
    c->option = g_malloc(NBD_OPTION_DATA_MAX);
    c->out = g_byte_array_new();
    bool good = converse(c);
    g_clear_pointer(&c->option, g_free);
    g_clear_pointer(&c->out, g_byte_array_unref);
    return good;
}
