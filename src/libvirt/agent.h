/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Questions to the guest agent whose answers libvirt has calls for.
 *
 * Spec      QEMU's guest agent protocol. Thread: in a task.
 * Trust     Answers are the guest's: types are checked, numbers of things are capped.
 */
#pragma once

#include "libvirt/object.h"

#include <json-glib/json-glib.h>

enum { AGENT_ROWS_MAX = 256 };

/* The value of "return". `args` is taken, may be NULL. json_node_unref(). */
JsonNode *agent_ask(struct rpc_call *c, struct domain *d, const char *command, JsonObject *args,
                    GError **error);
/* The same for an answer that is a list of objects, of at most AGENT_ROWS_MAX. */
JsonArray *agent_ask_list(struct rpc_call *c, struct domain *d, const char *command,
                          GError **error);
/* The guest's vCPUs, all or those that are online; -1: error. */
int agent_vcpu_count(struct rpc_call *c, struct domain *d, bool all, GError **error);
/* What stands there if it is of the type, else NULL or 0. */
const char *agent_text(JsonObject *o, const char *member);
int64_t agent_number(JsonObject *o, const char *member);
bool agent_is(JsonObject *o, const char *member); /* true, and nothing else */
JsonArray *agent_list(JsonObject *o, const char *member);
JsonObject *agent_object(JsonObject *o, const char *member);
/* Element i, if it is an object; else NULL. */
JsonObject *agent_row(JsonArray *a, unsigned i);
const char *agent_text_at(JsonArray *a, unsigned i);
unsigned agent_count(JsonArray *a); /* NULL: 0; capped */
/* The target name of the machine's disk that a GuestDiskAddress means; NULL: none of its disks. */
char *agent_disk_target(struct domain *d, JsonObject *address);
