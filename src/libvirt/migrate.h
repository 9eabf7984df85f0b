/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The phases of migration on the wire, for both ends: what a client sends is what the server reads.
 *
 * Spec      libvirt's remote protocol at 9.0.0, procedures 302 to 307.
 */
#pragma once

#include "libvirt/object.h"
#include "manager/domain/domain_migrate.h"

#define LIMIT_MIGRATE_PARAMS 64

struct a_migrate_begin {
    struct wire_domain dom;
    struct xdr_array params;
    uint32_t flags;
};
struct a_migrate_prepare {
    struct xdr_array params;
    struct xdr_bytes cookie;
    uint32_t flags;
};
struct a_migrate_perform {
    struct wire_domain dom;
    char *peer;
    struct xdr_array params;
    struct xdr_bytes cookie;
    uint32_t flags;
};
struct a_migrate_finish {
    struct xdr_array params;
    struct xdr_bytes cookie;
    uint32_t flags;
    int32_t cancelled;
};
struct a_migrate_confirm {
    struct wire_domain dom;
    struct xdr_array params;
    struct xdr_bytes cookie;
    uint32_t flags;
    int32_t cancelled;
};
struct r_migrate_begin {
    struct xdr_bytes cookie;
    char *xml;
};
struct r_migrate_prepare {
    struct xdr_bytes cookie;
    char *uri;
};
struct r_migrate_cookie {
    struct xdr_bytes cookie;
};
struct r_migrate_finish {
    struct wire_domain dom;
    struct xdr_bytes cookie;
};
extern const struct xdr_row a_migrate_begin_xdr[], a_migrate_prepare_xdr[], a_migrate_perform_xdr[],
    a_migrate_finish_xdr[], a_migrate_confirm_xdr[], r_migrate_begin_xdr[], r_migrate_prepare_xdr[],
    r_migrate_cookie_xdr[], r_migrate_finish_xdr[];
