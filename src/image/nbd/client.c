/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The driver "nbd": images behind an NBD server.
 *
 * Spec      NBD protocol; options of QEMU's blockdev driver nbd.
 * Fiber     Every operation waits for its answers; as many are in flight as the node layer brings.
 * Trust     The server is hostile, see link.h: it can give wrong data, never data outside of what
 *           was asked, and it can let requests wait.
 */
#include "image/nbd/client.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>

#define ZERO_LEN_MAX GIB /* of one request without payload */
#define TRIES_MAX    32  /* of one request, on as many connections */

static struct nbd_node *nbd_of(struct node *n)
{
    return container_of(n, struct nbd_node, node);
}

/* Sends it, and again when the connection was lost and could be had anew; a server that hangs up each
 * time is given up. */
static int call(struct nbd_node *n, struct nbd_call *template, struct nbd_call *c)
{
    for (unsigned tries = 0; tries < TRIES_MAX; tries++) {
        struct nbd_link *l = nbd_pick_link(n);
        if (!l)
            return -EIO;
        *c = *template;
        int rc = nbd_link_call(l, c);
        nbd_link_unref(l);
        if (!c->lost)
            return rc;
    }
    return -EIO;
}

static int nbd_read(struct node *node, uint64_t off, struct vec v, unsigned flags)
{
    struct nbd_node *n = nbd_of(node);
    int rc = 0;
    for (size_t done = 0; done < v.len && rc == 0;) {
        size_t len = min_u64(v.len - done, n->offer.max_payload);
        struct nbd_call c, t = { .command = NBD_CMD_READ,
                                 .offset = off + done,
                                 .len = (uint32_t)len,
                                 .data = vec_slice(v, done, len) };
        rc = call(n, &t, &c);
        done += len;
    }
    return rc;
}

static int nbd_write(struct node *node, uint64_t off, struct vec v, unsigned flags)
{
    struct nbd_node *n = nbd_of(node);
    int rc = 0;
    for (size_t done = 0; done < v.len && rc == 0;) {
        size_t len = min_u64(v.len - done, n->offer.max_payload);
        struct nbd_call c, t = { .command = NBD_CMD_WRITE,
                                 .offset = off + done,
                                 .len = (uint32_t)len,
                                 .flags = flags & NODE_FUA ? NBD_CMD_FUA : 0,
                                 .data = vec_slice(v, done, len) };
        rc = call(n, &t, &c);
        done += len;
    }
    return rc;
}

static int ranged(struct nbd_node *n, uint16_t command, uint16_t flags, uint64_t off, uint64_t len)
{
    int rc = 0;
    while (len && rc == 0) {
        uint64_t part = min_u64(len, ZERO_LEN_MAX);
        struct nbd_call c,
            t = { .command = command, .flags = flags, .offset = off, .len = (uint32_t)part };
        rc = call(n, &t, &c);
        off += part;
        len -= part;
    }
    return rc;
}

static int nbd_zero(struct node *node, uint64_t off, uint64_t len, unsigned flags)
{
    struct nbd_node *n = nbd_of(node);
    if (!(n->offer.flags & NBD_FLAG_SEND_WRITE_ZEROES))
        return -ENOTSUP;
    if ((flags & NODE_NO_FALLBACK) && !(n->offer.flags & NBD_FLAG_SEND_FAST_ZERO))
        return -ENOTSUP;
    return ranged(n, NBD_CMD_WRITE_ZEROES,
                  (flags & NODE_FUA ? NBD_CMD_FUA : 0) |
                      (flags & NODE_MAY_UNMAP ? 0 : NBD_CMD_NO_HOLE) |
                      (flags & NODE_NO_FALLBACK ? NBD_CMD_FAST_ZERO : 0),
                  off, len);
}

static int nbd_discard(struct node *node, uint64_t off, uint64_t len)
{
    struct nbd_node *n = nbd_of(node);
    return n->offer.flags & NBD_FLAG_SEND_TRIM ? ranged(n, NBD_CMD_TRIM, 0, off, len) : -ENOTSUP;
}

static int nbd_flush(struct node *node)
{
    struct nbd_node *n = nbd_of(node);
    if (!(n->offer.flags & NBD_FLAG_SEND_FLUSH))
        return 0;
    struct nbd_call c, t = { .command = NBD_CMD_FLUSH };
    return call(n, &t, &c);
}

/* With x-dirty-bitmap the flags are that context's: dirty is shown as "no data", as in QEMU. */
static int nbd_map(struct node *node, uint64_t off, uint64_t len, struct image_extent *ret)
{
    struct nbd_node *n = nbd_of(node);
    *ret = (struct image_extent){ .len = len,
                                  .flags = EXTENT_DATA | EXTENT_ALLOCATED | EXTENT_OFFSET,
                                  .host = node,
                                  .host_offset = off };
    if (!n->offer.has_context)
        return 0;
    struct nbd_call c, t = { .command = NBD_CMD_BLOCK_STATUS,
                             .flags = NBD_CMD_REQ_ONE,
                             .offset = off,
                             .len = (uint32_t)min_u64(len, ZERO_LEN_MAX) };
    int rc = call(n, &t, &c);
    if (rc < 0)
        return rc;
    uint64_t part = align_down(c.extent_len, n->offer.min_block);
    if (part == 0)
        return -EIO; /* the server breaks its own block size */
    ret->len = part;
    ret->flags = EXTENT_ALLOCATED | EXTENT_OFFSET;
    if (!(c.extent_flags & NBD_STATE_HOLE))
        ret->flags |= EXTENT_DATA;
    if (c.extent_flags & NBD_STATE_ZERO)
        ret->flags |= EXTENT_ZERO;
    return 0;
}

/* --- opening and closing --- */

static bool first_link(struct nbd_node *n, GError **error)
{
    int64_t end_ns = loop_now_ns() + (int64_t)n->open_timeout * NS_PER_SEC;
    for (;;) {
        g_autoptr(GError) why = NULL;
        n->links[0] = nbd_connect(n, NBD_CONNECT_SECONDS, &why);
        if (n->links[0])
            break;
        if (loop_now_ns() >= end_ns ||
            (n->reached && !g_error_matches(why, RUCHE_ERROR, RUCHE_ERR_IO))) {
            g_propagate_error(error, g_steal_pointer(&why));
            return false;
        }
        context_sleep_ns(n->node.ctx, NS_PER_SEC / 2);
    }
    n->offer = n->links[0]->offer;
    return true;
}

/* More connections where the server says that they see one another's writes. One that fails is no
 * error. */
static void more_links(struct nbd_node *n)
{
    unsigned wanted = n->offer.flags & NBD_FLAG_CAN_MULTI_CONN ? (unsigned)n->link_count : 1;
    n->link_count = 1;
    while (n->link_count < wanted) {
        g_autoptr(GError) why = NULL;
        n->links[n->link_count] = nbd_connect(n, NBD_CONNECT_SECONDS, &why);
        if (!n->links[n->link_count]) {
            log_warn("node '%s': %u of %u connections: %s", node_name(&n->node),
                     (unsigned)n->link_count, wanted, why->message);
            return;
        }
        n->link_count++;
    }
}

static bool nbd_set_read_only(struct node *node, bool read_only, GError **error)
{
    struct nbd_node *n = nbd_of(node);
    if (!read_only && (n->offer.flags & NBD_FLAG_READ_ONLY))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "%s: export '%s' is read-only", n->where,
                           n->export ? n->export : "");
    return true;
}

static bool nbd_open(struct node *node, GError **error)
{
    struct nbd_node *n = nbd_of(node);
    if (!nbd_address_check(n, error))
        return false;
    if (n->tls_creds && !(n->creds = tls_creds_find(n->tls_creds, false, error)))
        return false;
    n->where = nbd_address_name(&n->server, n->creds != NULL);
    if (!first_link(n, error))
        return false;
    if ((n->offer.flags & NBD_FLAG_READ_ONLY) && node->auto_read_only)
        node->read_only = true;
    if (!nbd_set_read_only(node, node->read_only, error))
        return false;
    more_links(n);
    node->size_bytes = n->offer.size_bytes;
    node->request_align = n->offer.min_block;
    node->write_flags = n->offer.flags & NBD_FLAG_SEND_FUA ? NODE_FUA : 0;
    node->zero_flags = node->write_flags | NODE_MAY_UNMAP |
                       (n->offer.flags & NBD_FLAG_SEND_FAST_ZERO ? NODE_NO_FALLBACK : 0);
    if (!node->filename || !*node->filename) {
        g_free(node->filename);
        node->filename = nbd_export_name(n);
    }
    return true;
}

static void nbd_close(struct node *node)
{
    struct nbd_node *n = nbd_of(node);
    for (unsigned i = 0; i < NBD_LINKS_MAX; i++) {
        if (n->links[i])
            nbd_link_goodbye(n->links[i]);
        nbd_link_unref(n->links[i]);
        n->links[i] = NULL;
    }
    tls_creds_unref(n->creds);
    n->creds = NULL;
    g_clear_pointer(&n->where, g_free);
}

/* Nothing is in flight: idle connections wait for nothing, they only remember where to. */
static void nbd_attach(struct node *node)
{
    struct nbd_node *n = nbd_of(node);
    for (unsigned i = 0; i < NBD_LINKS_MAX; i++) {
        if (n->links[i])
            n->links[i]->ch.ctx = node->ctx;
    }
}

static const struct image_option nbd_options[] = {
    OPT_WORD("server.type", struct nbd_node, server.type, nbd_server_type_words, NBD_SERVER_NONE,
             "inet or unix"),
    OPT_STRING("server.host", struct nbd_node, server.host, "Host name or address"),
    OPT_STRING("server.port", struct nbd_node, server.port, "TCP port (default 10809)"),
    OPT_STRING("server.path", struct nbd_node, server.path, "Path of a Unix socket"),
    OPT_STRING("host", struct nbd_node, flat.host, "The same as server.host"),
    OPT_STRING("port", struct nbd_node, flat.port, "The same as server.port"),
    OPT_STRING("path", struct nbd_node, flat.path, "The same as server.path"),
    OPT_STRING("export", struct nbd_node, export,
               "Name of the export (default: the server's own choice)"),
    OPT_STRING("tls-creds", struct nbd_node, tls_creds,
               "Id of TLS credentials: the connection is encrypted"),
    OPT_STRING("tls-hostname", struct nbd_node, tls_hostname,
               "Name that the server's certificate must bear"),
    OPT_STRING("x-dirty-bitmap", struct nbd_node, dirty_bitmap, "Meta context that the map shows"),
    OPT_U64("reconnect-delay", struct nbd_node, reconnect_delay, 0, 0, 86400 * 365,
            "Seconds that requests wait for a lost connection"),
    OPT_U64("open-timeout", struct nbd_node, open_timeout, 0, 0, 86400,
            "Seconds to go on trying to connect at first"),
    OPT_U64("multi-conn", struct nbd_node, link_count, 1, 1, NBD_LINKS_MAX,
            "Connections, where the server allows several"),
    { 0 },
};

static const char *const nbd_schemes[] = { "nbd",      "nbd+tcp",   "nbd+unix", "nbds",
                                           "nbds+tcp", "nbds+unix", NULL };

static const struct image_driver nbd_driver = {
    .name = "nbd",
    .summary = "Network block device",
    .spec = "NBD protocol",
    .kind = DRIVER_PROTOCOL,
    .size = sizeof(struct nbd_node),
    .schemes = nbd_schemes,
    .open_options = nbd_options,
    .parse_name = nbd_parse_name,
    .open = nbd_open,
    .close = nbd_close,
    .read = nbd_read,
    .write = nbd_write,
    .zero = nbd_zero,
    .discard = nbd_discard,
    .flush = nbd_flush,
    .map = nbd_map,
    .set_read_only = nbd_set_read_only,
    .attach = nbd_attach,
};
IMAGE_DRIVER(nbd_driver);
