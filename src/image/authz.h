/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Who may use a server, by the name that a client has proved to have: the objects authz-simple (one name),
 * authz-list (rules, in order) and authz-list-file (the same in a file), by their ids.
 *
 * Spec      QEMU's objects of these names; what a server is told is an id, which is looked up at each use: an
 *           object that is not there lets nobody in.
 * Owner     One registry for the process.
 * Thread    Any.
 * Trust     Names are the clients'; rules are the user's. Rules and files are bounded.
 * Errors    Sentences.
 */
#pragma once

#include "base/error.h"

#include <json-glib/json-glib.h>

#define AUTHZ_RULES_MAX 1024
#define AUTHZ_FILE_MAX (1 << 20)

bool authz_is_kind(const char *kind);
/* props without qom-type and id; nested, or with dots in their names. Only read. */
bool authz_add(const char *kind, const char *id, JsonObject *props, GError **error);
bool authz_remove(const char *id); /* false: there is none */
/* name NULL: the client has none. */
bool authz_allows(const char *id, const char *name);
