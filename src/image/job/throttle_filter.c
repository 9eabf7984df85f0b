/* SPDX-License-Identifier: GPL-2.0-or-later */
/* `throttle`: a filter whose requests keep to the limits of a throttle group, which object-add
 * makes.
 *
 * Fiber     Requests wait in their own fibers.
 */
#include "image/job/internal.h"
#include "image/throttle.h"

#include "base/error.h"

struct throttle_filter {
    struct node n;
    char *group_name; /* option */
    struct throttle_member member;
};

static const struct image_option throttle_options[] = {
    OPT_STRING("throttle-group", struct throttle_filter, group_name, "Group whose limits hold"),
    { 0 },
};

static struct throttle_filter *of(struct node *n)
{
    return container_of(n, struct throttle_filter, n);
}

static bool throttle_filter_open(struct node *n, GError **error)
{
    struct throttle_filter *s = of(n);
    filter_inherit(n);
    n->grows = node_file(n)->grows;
    if (!s->group_name)
        return ruche_error(error, RUCHE_ERR_INVALID, "'throttle-group' is missing");
    struct throttle_group *g = throttle_group_find(s->group_name);
    if (!g)
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "there is no throttle group '%s'",
                           s->group_name);
    throttle_join(&s->member, g, node_context(n));
    throttle_group_put(g);
    return true;
}

static void throttle_filter_close(struct node *n)
{
    throttle_leave(&of(n)->member);
}

static int throttle_filter_read(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    throttle_pass(&of(n)->member, false, v.len);
    return node_read(node_file(n), off, v, flags);
}

static int throttle_filter_write(struct node *n, uint64_t off, struct vec v, unsigned flags)
{
    throttle_pass(&of(n)->member, true, v.len);
    return node_write(node_file(n), off, v, flags);
}

static int throttle_filter_zero(struct node *n, uint64_t off, uint64_t len, unsigned flags)
{
    throttle_pass(&of(n)->member, true, len);
    return node_zero(node_file(n), off, len, flags);
}

static int throttle_filter_discard(struct node *n, uint64_t off, uint64_t len)
{
    throttle_pass(&of(n)->member, true, len);
    return node_discard(node_file(n), off, len);
}

static bool throttle_filter_resize(struct node *n, uint64_t size, enum image_prealloc p,
                                   GError **error)
{
    if (!node_resize(node_file(n), size, p, error))
        return false;
    n->size_bytes = size;
    return true;
}

static void throttle_filter_drain(struct node *n, bool begin)
{
    throttle_open(&of(n)->member, begin);
}

/* Nobody waits: the node is drained while it moves. */
static void throttle_filter_attach(struct node *n)
{
    throttle_move(&of(n)->member, node_context(n));
}

static const struct image_driver throttle = {
    .name = "throttle",
    .summary = "Limits on operations and bytes a second",
    .kind = DRIVER_FILTER,
    .flags = DRIVER_SWAP_FILE,
    .size = sizeof(struct throttle_filter),
    .open_options = throttle_options,
    .open = throttle_filter_open,
    .close = throttle_filter_close,
    .read = throttle_filter_read,
    .write = throttle_filter_write,
    .zero = throttle_filter_zero,
    .discard = throttle_filter_discard,
    .resize = throttle_filter_resize,
    .drain = throttle_filter_drain,
    .attach = throttle_filter_attach,
};
IMAGE_DRIVER(throttle);
