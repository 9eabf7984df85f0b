/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the other side of a migration sends: after a first byte that chooses, a cookie, or
 * parameters, a cookie and flags as they come over the wire. */
#include "libvirt/params.h"
#include "manager/domain/domain_migrate_priv.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint8_t uuid[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};

/* What is taken of a cookie is a description's text. */
static void fuzz_cookie(const char *data, size_t size)
{
    struct migrate_cookie c = {0};
    const struct migrate_cookie_in in = {data, size};
    g_autoptr(GError) error = NULL;
    if (migrate_cookie_read(&in, size % 2 ? "web" : NULL, uuid, &c, &error) == (error != NULL))
        __builtin_trap();
    if (c.persistent && (error || strncmp(c.persistent, "<domain", 7) != 0))
        __builtin_trap();
    migrate_cookie_done(&c);
}

/* Parameters that are taken are written to the same. */
static void fuzz_params(const struct param_list *l)
{
    struct migrate_params p, again;
    struct param_list written = {0};
    if (!migrate_params_read(l, &p, NULL))
        return;
    migrate_params_write(&p, &written);
    if (!migrate_params_read(&written, &again, NULL) || g_strcmp0(p.uri, again.uri) != 0 ||
        g_strcmp0(p.dest_xml, again.dest_xml) != 0 || p.bandwidth_mib != again.bandwidth_mib)
        __builtin_trap();
    param_list_done(&written);
}

struct prepare {
    struct xdr_array params;
    struct xdr_bytes cookie;
    uint32_t flags;
};
static const struct xdr_row prepare_xdr[] = {
    XDR_LIST(struct prepare, params, wire_param, 64),
    XDR_F(BYTES, struct prepare, cookie, .max = MIGRATE_COOKIE_MAX),
    XDR_F(UINT, struct prepare, flags), XDR_DONE};

static void fuzz_prepare(const uint8_t *data, size_t size)
{
    struct prepare a;
    struct param_list l = {0};
    if (!xdr_read(prepare_xdr, &a, sizeof(a), data, size, NULL)) {
        if (params_from_wire(&a.params, &l, NULL))
            fuzz_params(&l);
        param_list_done(&l);
        migrate_flags_check(a.flags, NULL);
        fuzz_cookie((const char *)a.cookie.data, a.cookie.len);
    }
    xdr_free(prepare_xdr, &a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memset(manager.host_uuid, 7, sizeof(manager.host_uuid));
    if (size && data[0] & 1)
        fuzz_cookie((const char *)data + 1, size - 1);
    else if (size)
        fuzz_prepare(data + 1, size - 1);
    return 0;
}
