/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What a migration may be asked for. Thread: any. Trust: lists are the client's. */
#include "manager/domain/domain_migrate_priv.h"

#include <stddef.h>
#include <string.h>

/* ---- flags ---- */

static const struct {
    unsigned flag;
    const char *name; /* as clients call it */
} refused[] = {
    {MIGRATE_TUNNELLED, "tunnelled"},
    {MIGRATE_NON_SHARED_DISK, "copy-storage-all"},
    {MIGRATE_NON_SHARED_INC, "copy-storage-inc"},
    {1u << 14, "rdma-pin-all"},
    {1u << 15, "postcopy"},
    {1u << 16, "tls"},
    {1u << 17, "parallel"},
    {1u << 18, "copy-storage-synchronous-writes"},
    {1u << 19, "postcopy-resume"},
    {1u << 20, "zerocopy"},
};
#define KNOWN ((1u << 21) - 1)

bool migrate_flags_check(unsigned flags, GError **error)
{
    if (flags & ~KNOWN)
        return ruche_error(error, MANAGER_ERR_ARGUMENT, "unsupported flags (0x%x) in migrate",
                           flags & ~KNOWN);
    for (unsigned i = 0; i < G_N_ELEMENTS(refused); i++)
        if (flags & refused[i].flag)
            return ruche_error(error, MANAGER_ERR_ARGUMENT, "migration: '%s' is not possible here",
                               refused[i].name);
    if ((flags & MIGRATE_OFFLINE) && (flags & MIGRATE_LIVE))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "migration: 'live' and 'offline' exclude each other");
    return true;
}

/* ---- parameters ---- */

static const struct {
    const char *name;
    enum param_type type;
    size_t at;
} rows[] = {
    {"migrate_uri", PARAM_STRING, offsetof(struct migrate_params, uri)},
    {"destination_name", PARAM_STRING, offsetof(struct migrate_params, dest_name)},
    {"destination_xml", PARAM_STRING, offsetof(struct migrate_params, dest_xml)},
    {"persistent_xml", PARAM_STRING, offsetof(struct migrate_params, persist_xml)},
    {"listen_address", PARAM_STRING, offsetof(struct migrate_params, listen)},
    {"bandwidth", PARAM_ULLONG, offsetof(struct migrate_params, bandwidth_mib)},
};
/* Said by clients, and of no effect: where viewers are to go. */
static const char *const ignored[] = {"graphics_uri", "disks_port", "disks_uri", NULL};

static bool read_one(const struct param *p, struct migrate_params *ret, GError **error)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        if (strcmp(p->name, rows[i].name))
            continue;
        if (p->type != rows[i].type)
            return ruche_error(error, RUCHE_ERR_INVALID, "migration: parameter '%s' is of type %d",
                               p->name, p->type);
        char *at = (char *)ret + rows[i].at;
        if (p->type == PARAM_STRING)
            *(const char **)at = p->s;
        else
            *(uint64_t *)at = p->u;
        return true;
    }
    return g_strv_contains(ignored, p->name) ||
           ruche_error(error, MANAGER_ERR_ARGUMENT,
                       "migration: parameter '%s' is not possible here", p->name);
}

bool migrate_params_read(const struct param_list *l, struct migrate_params *ret, GError **error)
{
    *ret = (struct migrate_params){0};
    for (unsigned i = 0; i < l->count; i++)
        if (!read_one(&l->rows[i], ret, error))
            return false;
    return true;
}

void migrate_params_write(const struct migrate_params *p, struct param_list *ret)
{
    for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
        const char *at = (const char *)p + rows[i].at;
        const char *text = rows[i].type == PARAM_STRING ? *(const char *const *)at : NULL;
        if (text)
            param_string(ret, rows[i].name, text);
        else if (rows[i].type == PARAM_ULLONG && *(const uint64_t *)at)
            param_ullong(ret, rows[i].name, *(const uint64_t *)at);
    }
}
