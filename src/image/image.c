/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Disk images: open and close, information, who uses them. Requests are in request.c and engine.c.
 *
 * Thread    Main thread.
 * Trust     Options come from the user and are checked; the file is checked in open.c.
 * Errors    Sentences that name the image.
 */
#include "image/internal.h"

#include "base/fd.h"

#include <string.h>

static bool check_options(const struct image_options *o, GError **error)
{
    const char *name = o->filename ? o->filename : o->node_name;
    if (o->format && strcmp(o->format, "raw"))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "image '%s': format '%s' is not known%s",
                           name ? name : "", o->format,
                           suggest_phrase(o->format, (const char *const[]){ "raw", NULL }));
    if (o->snapshot)
        return ruche_error(
            error, RUCHE_ERR_UNSUPPORTED,
            "image '%s': snapshot=on needs a format with overlays, and only raw is known",
            name ? name : "");
    if (o->force_share && !o->read_only)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "image '%s': force-share=on is only for read-only=on", name ? name : "");
    if (o->fd < 0 && (!o->filename || !*o->filename))
        return ruche_error(error, RUCHE_ERR_INVALID, "an image needs a file name");
    return true;
}

struct image *image_open(const struct image_options *o, GError **error)
{
    if (!check_options(o, error))
        return NULL;
    struct image *i = g_new0(struct image, 1);
    i->fd = -1;
    const char *name = o->filename && *o->filename ? o->filename : "descriptor";
    i->filename = g_strdup(o->fd < 0 && g_str_has_prefix(name, "file:") ? name + 5 : name);
    i->node_name = g_strdup(o->node_name ? o->node_name : "");
    i->direct = o->direct;
    i->no_flush = o->no_flush;
    i->writethrough = o->writethrough;
    i->discard = o->discard;
    if (image_file_open(i, o, error) < 0) {
        image_close(i);
        return NULL;
    }
    i->info.format = "raw";
    i->info.filename = i->filename;
    i->info.node_name = i->node_name;
    i->stats.idle_since_ns = loop_now_ns();
    int err = image_engine_init(i);
    if (err < 0) {
        ruche_error_errno(error, -err,
                          "image '%s': neither io_uring nor a worker thread can be had",
                          i->filename);
        image_close(i);
        return NULL;
    }
    return i;
}

void image_close(struct image *i)
{
    if (!i)
        return;
    image_drain(i);
    image_engine_done(i);
    fd_close_keep_errno(i->fd);
    g_free(i->bounce);
    g_free(i->filename);
    g_free(i->node_name);
    g_free(i->attached_to);
    g_free(i);
}

void image_get_info(const struct image *i, struct image_info *ret)
{
    *ret = i->info;
}

const struct image_stats *image_get_stats(const struct image *i)
{
    return &i->stats;
}

bool image_attach(struct image *i, const char *user, GError **error)
{
    if (i->attached_to)
        return ruche_error(error, RUCHE_ERR_BUSY, "image '%s' is already used by %s", i->filename,
                           i->attached_to);
    i->attached_to = g_strdup(user);
    return true;
}

void image_detach(struct image *i)
{
    g_clear_pointer(&i->attached_to, g_free);
}

const char *image_attached_to(const struct image *i)
{
    return i->attached_to;
}

int image_set_loop(struct image *i, struct loop *l)
{
    if (i->in_flight)
        return -EBUSY;
    return image_engine_set_loop(i, l);
}

void image_on_batch(struct image *i, void (*fn)(void *opaque), void *opaque)
{
    i->batch_end = fn;
    i->batch_opaque = opaque;
}

static void sync_done(struct image_request *r, int result)
{
    *(int *)r->opaque = result;
}

int image_read_sync(struct image *i, uint64_t offset, void *buf, uint64_t len)
{
    int result = 0;
    struct iovec iov = { .iov_base = buf, .iov_len = len };
    struct image_request r = { .op = IMAGE_READ,
                               .offset = offset,
                               .len = len,
                               .iov = &iov,
                               .iov_count = 1,
                               .done = sync_done,
                               .opaque = &result };
    image_submit(i, &r);
    image_drain(i);
    return result;
}
