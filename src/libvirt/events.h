/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Events for clients that asked: each registration is a class, an event, perhaps an object.
 *
 * Spec      libvirt's remote protocol at 9.0.0; messages have serial 1 and lead with the
 *           callback's id, but for those of the old registrations.
 * Thread    The loop thread. Owner: the client has its registrations.
 */
#pragma once

#include "libvirt/client.h"
#include "manager/event.h"

enum { EVENT_REGISTRATIONS_MAX = 1024 }; /* of one client */
enum { EVENT_PATTERN_MAX = 256 };        /* bytes */

void events_start(void);
void events_stop(void);
/* `uuid` or `name` NULL: every object. Returns the callback's id, -1 with *error. */
int events_register(struct client *c, enum event_class class, int event, const uint8_t *uuid,
                    const char *name, GError **error);
/* What the monitor of a domain (`uuid` NULL: of any) tells: the events of this name (NULL: all), or those
 * that it matches as an expression. */
enum event_monitor_flags { EVENT_PATTERN = 1, EVENT_ANY_CASE = 2 };
int events_register_monitor(struct client *c, const uint8_t *uuid, const char *event,
                            unsigned flags, GError **error);
bool events_deregister(struct client *c, enum event_class class, int callback, GError **error);
/* Without ids: procedures 105, 106, 167, 168. At most one for each event. */
bool events_register_old(struct client *c, int event, GError **error);
bool events_deregister_old(struct client *c, int event, GError **error);
/* What a message of this procedure is made of, and the bytes of what the rows fill; NULL: it tells
 * of no event that we send. */
const struct xdr_row *events_rows(uint32_t program, uint32_t procedure, size_t *ret_size);
/* The client has ended. */
void events_forget(struct client *c);
