/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rows of the phases. */
#include "libvirt/migrate.h"

#define COOKIE(type)     XDR_F(BYTES, struct type, cookie, .max = MIGRATE_COOKIE_MAX)
#define PARAMS(type)     XDR_LIST(struct type, params, wire_param, LIMIT_MIGRATE_PARAMS)
#define DOM(type)        XDR_SUB(struct type, dom, wire_domain_xdr)
#define FLAGS(type)      XDR_F(UINT, struct type, flags)
#define ROWS(shape, ...) const struct xdr_row shape##_xdr[] = {__VA_ARGS__, XDR_DONE}

ROWS(a_migrate_begin, DOM(a_migrate_begin), PARAMS(a_migrate_begin), FLAGS(a_migrate_begin));
ROWS(a_migrate_prepare, PARAMS(a_migrate_prepare), COOKIE(a_migrate_prepare),
     FLAGS(a_migrate_prepare));
ROWS(a_migrate_perform, DOM(a_migrate_perform), XDR_F(STRING_OPT, struct a_migrate_perform, peer),
     PARAMS(a_migrate_perform), COOKIE(a_migrate_perform), FLAGS(a_migrate_perform));
ROWS(a_migrate_finish, PARAMS(a_migrate_finish), COOKIE(a_migrate_finish), FLAGS(a_migrate_finish),
     XDR_F(INT, struct a_migrate_finish, cancelled));
ROWS(a_migrate_confirm, DOM(a_migrate_confirm), PARAMS(a_migrate_confirm),
     COOKIE(a_migrate_confirm), FLAGS(a_migrate_confirm),
     XDR_F(INT, struct a_migrate_confirm, cancelled));
ROWS(r_migrate_begin, COOKIE(r_migrate_begin), XDR_F(STRING, struct r_migrate_begin, xml));
ROWS(r_migrate_prepare, COOKIE(r_migrate_prepare),
     XDR_F(STRING_OPT, struct r_migrate_prepare, uri));
ROWS(r_migrate_cookie, COOKIE(r_migrate_cookie));
ROWS(r_migrate_finish, DOM(r_migrate_finish), COOKIE(r_migrate_finish));
