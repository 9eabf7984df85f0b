/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The client's half of the NBD handshake; see negotiate.h. */
#include "image/nbd/negotiate.h"

#include "image/node.h"

#include <errno.h>
#include <string.h>

#define REPLIES_MAX   64 /* to one option */
#define MIN_BLOCK_MAX (64 * KIB)

/* One handshake under way. */
struct talk {
    struct channel *ch;
    const struct nbd_ask *ask;
    struct nbd_offer *offer;
    bool fixed; /* the server answers options */
    bool no_zeroes;
    GError **error;
    uint8_t *data; /* NBD_OPTION_DATA_MAX: the last reply's payload */
    struct nbd_option_reply_head reply;
};

static bool failed(struct talk *t, int rc, const char *what)
{
    if (rc == -ENODATA || rc == -ECONNRESET || rc == -EPIPE)
        return ruche_error(t->error, RUCHE_ERR_IO, "%s: the server hung up while %s", t->ask->where,
                           what);
    return ruche_error_errno(t->error, -rc, "%s: the connection failed while %s", t->ask->where,
                             what);
}

static bool broken(struct talk *t, const char *what)
{
    return ruche_error(t->error, RUCHE_ERR_INVALID, "%s: the server breaks the protocol: %s",
                       t->ask->where, what);
}

static bool send_option(struct talk *t, uint32_t option, const void *data, size_t len)
{
    uint8_t head[NBD_OPTION_BYTES];
    nbd_pack_option(head, option, (uint32_t)len);
    struct iovec iov[] = { { head, sizeof(head) }, { (void *)data, len } };
    int rc = channel_send(t->ch, iov, len ? 2 : 1);
    return rc == 0 || failed(t, rc, "we negotiated");
}

/* One reply to `option`, its payload in t->data. */
static bool read_reply(struct talk *t, uint32_t option)
{
    uint8_t head[NBD_OPTION_REPLY_BYTES];
    int rc = channel_read(t->ch, head, sizeof(head));
    if (rc < 0)
        return failed(t, rc, "we negotiated");
    if (nbd_parse_option_reply(head, &t->reply) < 0 || t->reply.option != option)
        return broken(t, "what it sent is no reply to our option");
    if (t->reply.len > NBD_OPTION_DATA_MAX)
        return broken(t, "a reply to an option is too long");
    rc = channel_read(t->ch, t->data, t->reply.len);
    return rc == 0 || failed(t, rc, "we negotiated");
}

/* The error reply that came, as a sentence, with the server's own words when they are text. */
static bool refused(struct talk *t)
{
    struct cur c = cur_of(t->data, t->reply.len);
    g_autofree char *words = NULL;
    if (t->reply.len == 0 || t->reply.len > NBD_NAME_MAX ||
        nbd_take_text(&c, t->reply.len, &words) < 0)
        g_clear_pointer(&words, g_free);
    for (char *p = words; p && *p; p++) {
        if ((unsigned char)*p < ' ' || *p == 0x7f)
            *p = ' ';
    }
    enum ruche_err code =
        t->reply.type == NBD_REP_ERR_UNKNOWN ? RUCHE_ERR_NOT_FOUND : RUCHE_ERR_UNSUPPORTED;
    return ruche_error(t->error, code, "%s, export '%s': %s (%s)%s%s", t->ask->where,
                       t->ask->export, nbd_option_error_word(t->reply.type),
                       nbd_option_word(t->reply.option), words ? ": " : "", words ? words : "");
}

static bool hello(struct talk *t)
{
    uint8_t buf[NBD_HELLO_BYTES];
    int rc = channel_read(t->ch, buf, sizeof(buf));
    if (rc < 0)
        return failed(t, rc, "it should have greeted us");
    struct cur c = cur_of(buf, sizeof(buf));
    if (cur_be64(&c) != NBD_MAGIC)
        return ruche_error(t->error, RUCHE_ERR_INVALID, "%s: what answers there is no NBD server",
                           t->ask->where);
    uint64_t style = cur_be64(&c);
    uint16_t flags = cur_be16(&c);
    if (style == NBD_OLDSTYLE_MAGIC)
        return ruche_error(t->error, RUCHE_ERR_UNSUPPORTED,
                           "%s: the server speaks the oldstyle handshake, which is obsolete",
                           t->ask->where);
    if (style != NBD_OPTION_MAGIC)
        return broken(t, "its greeting is neither newstyle nor oldstyle");
    t->fixed = flags & NBD_FIXED_NEWSTYLE;
    t->no_zeroes = flags & NBD_NO_ZEROES;
    uint8_t answer[4];
    nbd_put_be32(answer, (t->fixed ? NBD_FIXED_NEWSTYLE : 0) | (t->no_zeroes ? NBD_NO_ZEROES : 0));
    rc = channel_send_flat(t->ch, answer, sizeof(answer));
    return rc == 0 || failed(t, rc, "we greeted it");
}

static bool start_tls(struct talk *t)
{
    if (!t->fixed)
        return ruche_error(t->error, RUCHE_ERR_UNSUPPORTED, "%s: the server is too old for TLS",
                           t->ask->where);
    if (!send_option(t, NBD_OPT_STARTTLS, NULL, 0) || !read_reply(t, NBD_OPT_STARTTLS))
        return false;
    if (t->reply.type != NBD_REP_ACK)
        return refused(t);
    if (channel_start_tls(t->ch, t->ask->creds, t->ask->tls_host, t->error))
        return true;
    g_prefix_error(t->error, "%s: ", t->ask->where);
    return false;
}

static bool ask_structured(struct talk *t)
{
    if (!send_option(t, NBD_OPT_STRUCTURED_REPLY, NULL, 0) ||
        !read_reply(t, NBD_OPT_STRUCTURED_REPLY))
        return false;
    if (t->reply.type == NBD_REP_ACK) {
        t->offer->structured = true;
        return true;
    }
    return t->reply.type == NBD_REP_ERR_TLS_REQD ? refused(t)
           : (t->reply.type & NBD_REP_IS_ERROR)
               ? true
               : broken(t, "its reply to NBD_OPT_STRUCTURED_REPLY is unknown");
}

/* "export, with what": one list of name and numbers for GO and SET_META_CONTEXT. */
static GByteArray *option_name(const char *export)
{
    GByteArray *b = g_byte_array_new();
    uint8_t n[4];
    nbd_put_be32(n, (uint32_t)strlen(export));
    g_byte_array_append(b, n, 4);
    g_byte_array_append(b, (const uint8_t *)export, (guint)strlen(export));
    return b;
}

static bool take_context(struct talk *t)
{
    struct cur c = cur_of(t->data, t->reply.len);
    uint32_t id = cur_be32(&c);
    size_t len = strlen(t->ask->context);
    if (c.bad || c.left != len || memcmp(c.p, t->ask->context, len) != 0 || t->offer->has_context)
        return broken(t, "it answers with a meta context that we did not ask for");
    t->offer->context_id = id;
    t->offer->has_context = true;
    return true;
}

static bool ask_context(struct talk *t)
{
    g_autoptr(GByteArray) b = option_name(t->ask->export);
    uint8_t n[8];
    nbd_put_be32(n, 1);
    nbd_put_be32(n + 4, (uint32_t)strlen(t->ask->context));
    g_byte_array_append(b, n, 8);
    g_byte_array_append(b, (const uint8_t *)t->ask->context, (guint)strlen(t->ask->context));
    if (!send_option(t, NBD_OPT_SET_META_CONTEXT, b->data, b->len))
        return false;
    for (unsigned i = 0; i < REPLIES_MAX; i++) {
        if (!read_reply(t, NBD_OPT_SET_META_CONTEXT))
            return false;
        if (t->reply.type == NBD_REP_ACK)
            return true;
        if (t->reply.type & NBD_REP_IS_ERROR)
            return t->ask->need_context ? refused(t) : true;
        if (t->reply.type != NBD_REP_META_CONTEXT)
            return broken(t, "its reply to NBD_OPT_SET_META_CONTEXT is unknown");
        if (!take_context(t))
            return false;
    }
    return broken(t, "it does not end its list of meta contexts");
}

static bool take_block_size(struct talk *t, struct cur *c)
{
    struct nbd_offer *o = t->offer;
    o->min_block = cur_be32(c);
    o->preferred_block = cur_be32(c);
    o->max_payload = cur_be32(c);
    if (c->bad || !is_power_of_2(o->min_block) || o->min_block > MIN_BLOCK_MAX ||
        !is_power_of_2(o->preferred_block) || o->preferred_block < o->min_block ||
        o->max_payload < o->min_block)
        return broken(t, "its block sizes are not possible");
    return true;
}

static bool take_info(struct talk *t, bool *ret_export)
{
    struct cur c = cur_of(t->data, t->reply.len);
    uint16_t type = cur_be16(&c);
    if (c.bad)
        return broken(t, "an information reply is too short");
    if (type == NBD_INFO_EXPORT) {
        t->offer->size_bytes = cur_be64(&c);
        t->offer->flags = cur_be16(&c);
        *ret_export = true;
        return !c.bad || broken(t, "the information on the export is too short");
    }
    return type == NBD_INFO_BLOCK_SIZE ? take_block_size(t, &c) : true;
}

/* *ret_unknown: the server does not know GO. */
static bool go(struct talk *t, bool *ret_unknown)
{
    g_autoptr(GByteArray) b = option_name(t->ask->export);
    uint8_t n[4];
    nbd_put_be16(n, 1);
    nbd_put_be16(n + 2, NBD_INFO_BLOCK_SIZE);
    g_byte_array_append(b, n, 4);
    if (!send_option(t, NBD_OPT_GO, b->data, b->len))
        return false;
    bool have_export = false;
    for (unsigned i = 0; i < REPLIES_MAX; i++) {
        if (!read_reply(t, NBD_OPT_GO))
            return false;
        if (t->reply.type == NBD_REP_ACK)
            return have_export ||
                   broken(t, "it accepts NBD_OPT_GO without saying how large the export is");
        if (t->reply.type == NBD_REP_ERR_UNSUP) {
            *ret_unknown = true;
            return true;
        }
        if (t->reply.type & NBD_REP_IS_ERROR)
            return refused(t);
        if (t->reply.type != NBD_REP_INFO)
            return broken(t, "its reply to NBD_OPT_GO is unknown");
        if (!take_info(t, &have_export))
            return false;
    }
    return broken(t, "it does not end its information on the export");
}

/* The old way: no answer but the export's size, or a hang-up. */
static bool export_name(struct talk *t)
{
    if (!send_option(t, NBD_OPT_EXPORT_NAME, t->ask->export, strlen(t->ask->export)))
        return false;
    uint8_t buf[10 + NBD_ZERO_PAD_BYTES];
    int rc = channel_read(t->ch, buf, t->no_zeroes ? 10 : sizeof(buf));
    if (rc == -ENODATA)
        return ruche_error(t->error, RUCHE_ERR_NOT_FOUND,
                           "%s: the server has no export '%s', or does not give it to us",
                           t->ask->where, t->ask->export);
    if (rc < 0)
        return failed(t, rc, "we asked for the export");
    struct cur c = cur_of(buf, 10);
    t->offer->size_bytes = cur_be64(&c);
    t->offer->flags = cur_be16(&c);
    return true;
}

static bool check_offer(struct talk *t)
{
    struct nbd_offer *o = t->offer;
    if (o->size_bytes > IMAGE_SIZE_MAX)
        return ruche_error(t->error, RUCHE_ERR_INVALID,
                           "%s, export '%s': its size of %" G_GUINT64_FORMAT
                           " bytes is over the limit of %llu",
                           t->ask->where, t->ask->export, o->size_bytes, IMAGE_SIZE_MAX);
    if (o->size_bytes % o->min_block)
        return ruche_error(t->error, RUCHE_ERR_INVALID,
                           "%s, export '%s': its size of %" G_GUINT64_FORMAT
                           " bytes is not a multiple of its block size %u",
                           t->ask->where, t->ask->export, o->size_bytes, o->min_block);
    if (!(o->flags & NBD_FLAG_HAS_FLAGS))
        o->flags = 0; /* the other bits mean nothing */
    o->max_payload = (uint32_t)align_down(min_u64(o->max_payload, NBD_PAYLOAD_MAX), o->min_block);
    if (!o->has_context && t->ask->need_context)
        return ruche_error(t->error, RUCHE_ERR_NOT_FOUND,
                           "%s: export '%s' has no meta context '%s'", t->ask->where,
                           t->ask->export, t->ask->context);
    return true;
}

static bool converse(struct talk *t)
{
    if (!hello(t) || (t->ask->creds && !start_tls(t)))
        return false;
    bool no_go = !t->fixed;
    if (t->fixed) {
        if (!ask_structured(t) || (t->offer->structured && !ask_context(t)) || !go(t, &no_go))
            return false;
    }
    return (!no_go || export_name(t)) && check_offer(t);
}

bool nbd_negotiate(struct channel *ch, const struct nbd_ask *ask, struct nbd_offer *ret,
                   GError **error)
{
    if (strlen(ask->export) > NBD_NAME_MAX || strlen(ask->context) > NBD_NAME_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "%s: the name of an export is %u bytes at most", ask->where,
                           NBD_NAME_MAX);
    struct nbd_offer offer = { .min_block = 1,
                               .preferred_block = 4096,
                               .max_payload = NBD_PAYLOAD_MAX };
    g_autofree uint8_t *data = g_malloc(NBD_OPTION_DATA_MAX);
    struct talk t = { .ch = ch, .ask = ask, .offer = &offer, .error = error, .data = data };
    if (!converse(&t))
        return false;
    *ret = offer;
    return true;
}
