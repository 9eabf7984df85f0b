/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The list of listeners. Thread: the loop thread. */
#include "manager/event.h"

static struct event_listener *listeners;

void event_listen(struct event_listener *l)
{
    struct event_listener **end = &listeners;
    while (*end)
        end = &(*end)->next;
    l->next = NULL;
    *end = l;
}

void event_unlisten(struct event_listener *l)
{
    for (struct event_listener **it = &listeners; *it; it = &(*it)->next)
        if (*it == l) {
            *it = l->next;
            l->next = NULL;
            return;
        }
}

void event_emit(const struct event *e)
{
    for (struct event_listener *l = listeners; l; l = l->next)
        l->fn(l->opaque, e);
}
