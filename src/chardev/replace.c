/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Another backend under a front end that keeps the address of the one it has.
 *
 * The chardev that the front end knows stays, without a backend of its own, and hands everything on to the new one,
 * which it owns. Changed once more, it has the next one: never a chain.
 *
 * Thread    The main loop. `instead` changes under the lock, as chardev_write() reads it on any thread.
 */
#include "chardev/chardev_priv.h"

#include <string.h>

static const struct chardev_type replaced_type = { .name = "replaced" };

bool chardev_replaceable(const struct chardev *c, GError **error)
{
    const struct chardev *now = chardev_now(c);
    if (now->mux)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "Chardev '%s' is a mux; that cannot be changed", c->id);
    if (now->port[0].used && !now->port[0].fe.takes_another)
        return ruche_error(error, RUCHE_ERR_BUSY, "Chardev '%s' is busy: its user cannot go on with another backend",
                           c->id);
    return true;
}

/* The front end goes from one to the other. */
static void move_port(struct chardev *from, struct chardev *to)
{
    to->port[0] = from->port[0];
    to->focus = from->focus;
    to->quit = from->quit;
    to->quit_opaque = from->quit_opaque;
    memset(from->port, 0, sizeof(from->port));
}

static void close_old(struct chardev *c, struct chardev *old)
{
    if (old != c) {
        chardev_free(old);
        return;
    }
    chardev_backend_close(c);
    c->type = &replaced_type;
}

bool chardev_replace(struct chardev *c, struct chardev *fresh, GError **error)
{
    struct chardev *old = chardev_now(c);
    if (!chardev_replaceable(c, error))
        return false;
    if (fresh->mux)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "Chardev '%s' cannot become a mux while it is in use", c->id);
    bool was_open = old->open;
    move_port(old, fresh);
    pthread_mutex_lock(&c->lock);
    c->instead = fresh; /* from here no writer is in the old one */
    pthread_mutex_unlock(&c->lock);
    pthread_mutex_lock(&fresh->lock);
    fresh->starved |= old->starved;
    pthread_mutex_unlock(&fresh->lock);
    close_old(c, old);
    if (was_open != fresh->open)
        chardev_tell_opened(fresh, fresh->open);
    loop_post(fresh->loop, &fresh->out_task); /* who waited for the old one goes on */
    chardev_accept_input(fresh);
    return true;
}
