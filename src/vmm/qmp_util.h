/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Small helpers for QMP commands' answers. */
#pragma once

#include "vmm/build.h"

static inline JsonNode *qmp_object(JsonObject *o)
{
    JsonNode *n = json_node_new(JSON_NODE_OBJECT);
    json_node_take_object(n, o);
    return n;
}

/* qmp_balloon.c: what qom-get and qom-set reach of the balloon by "/machine/peripheral/ID". */
bool qmp_balloon_path(struct vmm *v, const char *path);
JsonNode *qmp_balloon_get(struct vmm *v, const char *name, GError **error);
bool qmp_balloon_set(struct vmm *v, const char *name, JsonNode *value, GError **error);

static inline JsonNode *qmp_array(JsonArray *a)
{
    JsonNode *n = json_node_new(JSON_NODE_ARRAY);
    json_node_take_array(n, a);
    return n;
}
