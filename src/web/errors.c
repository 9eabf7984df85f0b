/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Our error codes as HTTP statuses and words. */
#include "web/op.h"

#include "base/util.h"

static const struct {
    int code;
    unsigned status;
    const char *word;
} statuses[] = {
    { RUCHE_ERR_INVALID, 400, "invalid" },
    { RUCHE_ERR_UNKNOWN, 400, "unknown" },
    { RUCHE_ERR_NOT_FOUND, 404, "not-found" },
    { RUCHE_ERR_EXISTS, 409, "exists" },
    { RUCHE_ERR_BUSY, 409, "busy" },
    { RUCHE_ERR_UNSUPPORTED, 501, "unsupported" },
    { RUCHE_ERR_NO_SPACE, 507, "no-space" },
    { RUCHE_ERR_IO, 500, "io" },
    { RUCHE_ERR_STATE, 409, "state" },
    { MANAGER_ERR_NO_DOMAIN, 404, "no-domain" },
    { MANAGER_ERR_NO_NETWORK, 404, "no-network" },
    { MANAGER_ERR_NO_POOL, 404, "no-pool" },
    { MANAGER_ERR_NO_VOLUME, 404, "no-volume" },
    { MANAGER_ERR_NO_SECRET, 404, "no-secret" },
    { MANAGER_ERR_NO_NODE_DEVICE, 404, "no-node-device" },
    { MANAGER_ERR_NO_INTERFACE, 404, "no-interface" },
    { MANAGER_ERR_NO_FILTER, 404, "no-filter" },
    { MANAGER_ERR_NO_SNAPSHOT, 404, "no-snapshot" },
    { MANAGER_ERR_NO_METADATA, 404, "no-metadata" },
    { RUCHE_ERR_XML_SYNTAX, 400, "xml-syntax" },
    { RUCHE_ERR_XML, 400, "xml" },
    { MANAGER_ERR_CONFIG, 422, "config" },
    { MANAGER_ERR_DENIED, 403, "denied" },
    { MANAGER_ERR_READ_ONLY, 403, "read-only" },
    { MANAGER_ERR_AUTH, 401, "auth" },
    { MANAGER_ERR_ARGUMENT, 400, "argument" },
    { MANAGER_ERR_TIMEOUT, 504, "timeout" },
    { MANAGER_ERR_LOCK_TIMEOUT, 503, "locked" },
    { MANAGER_ERR_ABORTED, 409, "aborted" },
    { MANAGER_ERR_AGENT, 503, "agent" },
    { MANAGER_ERR_MACHINE, 502, "machine" },
    { MANAGER_ERR_OVERFLOW, 413, "overflow" },
    { MANAGER_ERR_UNSAFE, 409, "unsafe" },
    { MANAGER_ERR_SECRET_PRIVATE, 403, "private" },
};

unsigned web_status(const GError *error, const char **ret_code)
{
    for (size_t i = 0; error->domain == RUCHE_ERROR && i < G_N_ELEMENTS(statuses); i++)
        if (statuses[i].code == error->code) {
            *ret_code = statuses[i].word;
            return statuses[i].status;
        }
    *ret_code = "internal";
    return 500;
}
