/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The one table from our codes to libvirt's. Thread: any. */
#include "libvirt/errors.h"

#include <string.h>

/* libvirt's numbers (virterror.h): domains, then codes. */
enum {
    FROM_NONE = 0,
    FROM_XML = 5,
    FROM_RPC = 7,
    FROM_QEMU = 10,
    FROM_STORAGE = 18,
    FROM_NETWORK = 19,
    FROM_DOMAIN = 20,
    FROM_NODEDEV = 22,
    FROM_INTERFACE = 26,
    FROM_SECRET = 30,
    FROM_NWFILTER = 33,
    FROM_SNAPSHOT = 35,
    FROM_AUTH = 46,
    FROM_ACCESS = 55
};
enum {
    E_INTERNAL = 1,
    E_NO_MEMORY = 2,
    E_NO_SUPPORT = 3,
    E_INVALID_ARG = 8,
    E_OPERATION_FAILED = 9,
    E_XML = 27,
    E_DENIED = 29,
    E_XML_DETAIL = 35,
    E_SYSTEM = 38,
    E_RPC = 39,
    E_NO_DOMAIN = 42,
    E_NO_NETWORK = 43,
    E_AUTH = 45,
    E_NO_POOL = 49,
    E_NO_VOLUME = 50,
    E_NO_NODE_DEVICE = 53,
    E_INVALID = 55,
    E_NO_INTERFACE = 57,
    E_NO_FILTER = 62,
    E_INVALID_SECRET = 65,
    E_NO_SECRET = 66,
    E_CONFIG = 67,
    E_TIMEOUT = 68,
    E_NO_SNAPSHOT = 72,
    E_ARGUMENT = 74,
    E_ABORTED = 78,
    E_NO_METADATA = 80,
    E_MIGRATE_UNSAFE = 81,
    E_OVERFLOW = 82,
    E_UNSUPPORTED = 84,
    E_AGENT = 86,
    E_BUSY = 87,
    E_ACCESS = 88
};

struct row {
    int ours, code, domain;
    const char *format; /* NULL: the sentence stands alone */
};
static const struct row rows[] = {
    {RUCHE_ERR_INVALID, E_INVALID_ARG, FROM_QEMU, NULL},
    {RUCHE_ERR_UNKNOWN, E_INVALID_ARG, FROM_QEMU, NULL},
    {RUCHE_ERR_NOT_FOUND, E_OPERATION_FAILED, FROM_QEMU, NULL},
    {RUCHE_ERR_EXISTS, E_OPERATION_FAILED, FROM_QEMU, NULL},
    {RUCHE_ERR_BUSY, E_BUSY, FROM_QEMU, NULL},
    {RUCHE_ERR_UNSUPPORTED, E_UNSUPPORTED, FROM_QEMU, NULL},
    {RUCHE_ERR_NO_SPACE, E_NO_MEMORY, FROM_QEMU, NULL},
    {RUCHE_ERR_IO, E_SYSTEM, FROM_QEMU, NULL},
    {RUCHE_ERR_STATE, E_INVALID, FROM_QEMU, NULL},
    {RUCHE_ERR_INTERNAL, E_INTERNAL, FROM_QEMU, NULL},
    {MANAGER_ERR_NO_DOMAIN, E_NO_DOMAIN, FROM_QEMU, "Domain not found: %s"},
    {MANAGER_ERR_NO_NETWORK, E_NO_NETWORK, FROM_NETWORK, "Network not found: %s"},
    {MANAGER_ERR_NO_POOL, E_NO_POOL, FROM_STORAGE, "Storage pool not found: %s"},
    {MANAGER_ERR_NO_VOLUME, E_NO_VOLUME, FROM_STORAGE, "Storage volume not found: %s"},
    {MANAGER_ERR_NO_SECRET, E_NO_SECRET, FROM_SECRET, "Secret not found: %s"},
    {MANAGER_ERR_NO_NODE_DEVICE, E_NO_NODE_DEVICE, FROM_NODEDEV, "Node device not found: %s"},
    {MANAGER_ERR_NO_INTERFACE, E_NO_INTERFACE, FROM_INTERFACE, "Interface not found: %s"},
    {MANAGER_ERR_NO_FILTER, E_NO_FILTER, FROM_NWFILTER, "Network filter not found: %s"},
    {MANAGER_ERR_NO_SNAPSHOT, E_NO_SNAPSHOT, FROM_QEMU, "Snapshot not found: %s"},
    {MANAGER_ERR_NO_METADATA, E_NO_METADATA, FROM_QEMU, "Metadata not found: %s"},
    {RUCHE_ERR_XML_SYNTAX, E_XML_DETAIL, FROM_XML, NULL},
    {RUCHE_ERR_XML, E_XML, FROM_DOMAIN, "XML error: %s"},
    {MANAGER_ERR_CONFIG, E_CONFIG, FROM_QEMU, "Unsupported configuration: %s"},
    {MANAGER_ERR_DENIED, E_ACCESS, FROM_ACCESS, "Access denied: %s"},
    {MANAGER_ERR_READ_ONLY, E_DENIED, FROM_DOMAIN, NULL},
    {MANAGER_ERR_AUTH, E_AUTH, FROM_AUTH, "Authentication failed: %s"},
    {MANAGER_ERR_ARGUMENT, E_ARGUMENT, FROM_QEMU, "Unsupported argument: %s"},
    {MANAGER_ERR_TIMEOUT, E_TIMEOUT, FROM_QEMU, "Timed out: %s"},
    {MANAGER_ERR_LOCK_TIMEOUT, E_TIMEOUT, FROM_QEMU, "Timed out: %s"},
    {MANAGER_ERR_ABORTED, E_ABORTED, FROM_QEMU, "Aborted: %s"},
    {MANAGER_ERR_AGENT, E_AGENT, FROM_QEMU, "Guest agent is not responding: %s"},
    {MANAGER_ERR_MACHINE, E_OPERATION_FAILED, FROM_QEMU, NULL},
    {MANAGER_ERR_OVERFLOW, E_OVERFLOW, FROM_QEMU, "Overflow: %s"},
    {MANAGER_ERR_UNSAFE, E_MIGRATE_UNSAFE, FROM_QEMU, "Unsafe migration: %s"},
    {MANAGER_ERR_SECRET_PRIVATE, E_INVALID_SECRET, FROM_SECRET, "Invalid secret: %s"},
};
static const struct row other = {0, E_INTERNAL, FROM_NONE, NULL};

G_DEFINE_QUARK(wire - error, wire_error)

enum { DOMAIN_SHIFT = 16 }; /* a GError has one number: the domain stands above the code */

bool wire_error(GError **error, int libvirt_code, int libvirt_domain, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    g_propagate_error(
        error,
        g_error_new_valist(WIRE_ERROR, libvirt_domain << DOMAIN_SHIFT | libvirt_code, format, ap));
    va_end(ap);
    return false;
}

static const struct row *find(const GError *e)
{
    for (const struct row *r = rows; r < rows + G_N_ELEMENTS(rows); r++)
        if (e->domain == RUCHE_ERROR && r->ours == e->code)
            return r;
    return &other;
}

void wire_error_fill(const GError *e, struct wire_error *ret)
{
    const struct row *r = find(e);
    *ret = (struct wire_error){
        .code = r->code, .domain = r->domain, .level = 2, .int1 = -1, .int2 = -1};
    if (e->domain == WIRE_ERROR) {
        ret->code = e->code & ((1 << DOMAIN_SHIFT) - 1);
        ret->domain = e->code >> DOMAIN_SHIFT;
    }
    ret->format = (char *)(r->format ? r->format : "%s");
    ret->argument = e->message;
    const char *end = r->format ? strstr(r->format, "%s") : NULL;
    ret->message = g_strdup_printf("%.*s%s", (int)(end ? end - r->format : 0),
                                   r->format ? r->format : "", e->message);
}
