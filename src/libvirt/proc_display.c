/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domains: pictures of the screen, keys, viewers' connections. Thread: the loop thread. */
#include "base/fd.h"
#include "libvirt/object.h"
#include "libvirt/stream.h"

enum { SKIP_AUTH = 1 };

/* ---- pictures ---- */

struct screenshot {
    struct wire_domain dom;
    uint32_t screen, flags;
};
static const struct xdr_row screenshot_xdr[] = {XDR_SUB(struct screenshot, dom, wire_domain_xdr),
                                                XDR_F(UINT, struct screenshot, screen),
                                                XDR_F(UINT, struct screenshot, flags), XDR_DONE};
struct mime {
    char *type;
};
static const struct xdr_row mime_xdr[] = {XDR_F(STRING_OPT, struct mime, type), XDR_DONE};

static bool screenshot(struct rpc_call *c, struct domain *d, const struct screenshot *a,
                       struct mime *ret, GError **error)
{
    if (!object_flags(a->flags, 0, "domain_screenshot", error))
        return false;
    int fd = domain_screenshot(c->who, d, a->screen, error);
    if (fd < 0)
        return false;
    ret->type = g_strdup("image/x-portable-pixmap");
    stream_new_download(c, fd, UINT64_MAX, false);
    return true;
}
DOMAIN_PROC(domain_screenshot, 211, RPC_STREAM, screenshot, screenshot(c, d, a, ret, error),
            RET(mime));

/* ---- keys ---- */

struct send_key {
    struct wire_domain dom;
    uint32_t set, hold_ms;
    struct xdr_array keys;
    uint32_t flags;
};
static const struct xdr_row send_key_xdr[] = {XDR_SUB(struct send_key, dom, wire_domain_xdr),
                                              XDR_F(UINT, struct send_key, set),
                                              XDR_F(UINT, struct send_key, hold_ms),
                                              XDR_F(ARRAY, struct send_key, keys,
                                                    .max = DOMAIN_KEYS_MAX,
                                                    .size = sizeof(uint32_t), .rows = wire_u32_xdr),
                                              XDR_F(UINT, struct send_key, flags),
                                              XDR_DONE};
DOMAIN_PROC(domain_send_key, 226, 0, send_key,
            object_flags(a->flags, 0, "domain_send_key", error) &&
                domain_send_key(c->who, d, a->set, a->hold_ms, a->keys.items, a->keys.count,
                                error));

/* ---- viewers ---- */

struct graphics {
    struct wire_domain dom;
    uint32_t number, flags;
};
static const struct xdr_row graphics_xdr[] = {XDR_SUB(struct graphics, dom, wire_domain_xdr),
                                              XDR_F(UINT, struct graphics, number),
                                              XDR_F(UINT, struct graphics, flags), XDR_DONE};

static bool open_graphics(struct rpc_call *c, struct domain *d, const struct graphics *a,
                          GError **error)
{
    if (!object_flags(a->flags, SKIP_AUTH, "domain_open_graphics", error))
        return false;
    if (c->fd_count != 1)
        return ruche_error(error, MANAGER_ERR_ARGUMENT,
                           "domain_open_graphics comes with one descriptor, not %u", c->fd_count);
    return domain_open_graphics(c->who, d, a->number, c->fds[0], a->flags & SKIP_AUTH, error);
}
DOMAIN_PROC(domain_open_graphics, 249, 0, graphics, open_graphics(c, d, a, error));

static bool view_graphics(struct rpc_call *c, struct domain *d, const struct graphics *a,
                          GError **error)
{
    if (!object_flags(a->flags, SKIP_AUTH, "domain_open_graphics_fd", error))
        return false;
    c->ret_fd = domain_view_graphics(c->who, d, a->number, a->flags & SKIP_AUTH, error);
    return c->ret_fd >= 0;
}
DOMAIN_PROC(domain_open_graphics_fd, 343, 0, graphics, view_graphics(c, d, a, error));
