/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table of domains: by name, UUID and number, and in the order of their names.
 *
 * Thread    The loop thread.
 * Owner     The table holds one reference of each domain.
 */
#include "manager/domain/domain_priv.h"
#include "manager/uuid.h"

#include <string.h>

static GHashTable *by_uuid; /* the 16 bytes in the domain to the domain */
static GHashTable *by_id;   /* of what runs */
static GPtrArray *by_name;  /* sorted; the owner */
static int last_id;

/* Where `name` is or would be; true: is. */
static bool find_place(const char *name, unsigned *ret_place)
{
    unsigned low = 0, high = by_name ? by_name->len : 0;
    while (low < high) {
        unsigned mid = low + (high - low) / 2;
        int order = strcmp(((struct domain *)by_name->pdata[mid])->name, name);
        if (order == 0) {
            *ret_place = mid;
            return true;
        }
        if (order < 0)
            low = mid + 1;
        else
            high = mid;
    }
    *ret_place = low;
    return false;
}

static void table_init(void)
{
    by_uuid = g_hash_table_new(uuid_hash, uuid_equal);
    by_id = g_hash_table_new(NULL, NULL);
    by_name = g_ptr_array_new();
}

struct domain *domain_new(const char *name, const uint8_t uuid[16])
{
    struct domain *d = g_new0(struct domain, 1);
    d->refs = 1;
    d->name = g_strdup(name);
    memcpy(d->uuid, uuid, 16);
    d->id = -1;
    d->agent_timeout = AGENT_DEFAULT;
    d->state = DOMAIN_SHUTOFF;
    return d;
}

struct domain *domain_ref(struct domain *d)
{
    d->refs++;
    return d;
}

void domain_unref(struct domain *d)
{
    if (!d || --d->refs)
        return;
    domain_set_vm(d, NULL);
    domain_job_free(d->job);
    domain_job_free(d->ended_job);
    domain_def_unref(d->def);
    domain_def_unref(d->live);
    g_free(d->name);
    g_free(d);
}

bool domain_table_add(struct domain *d)
{
    unsigned place;
    if (!by_name)
        table_init();
    if (find_place(d->name, &place) || g_hash_table_contains(by_uuid, d->uuid))
        return false;
    g_ptr_array_insert(by_name, (int)place, domain_ref(d));
    g_hash_table_insert(by_uuid, d->uuid, d);
    return true;
}

void domain_table_remove(struct domain *d)
{
    unsigned place;
    if (d->removed || !find_place(d->name, &place) || by_name->pdata[place] != d)
        return;
    domain_set_id(d, -1);
    g_ptr_array_remove_index(by_name, place);
    g_hash_table_remove(by_uuid, d->uuid);
    d->removed = true;
    domain_unref(d);
}

void domain_table_rename(struct domain *d, const char *name)
{
    unsigned place;
    if (find_place(d->name, &place))
        g_ptr_array_remove_index(by_name, place);
    g_free(d->name);
    d->name = g_strdup(name);
    find_place(name, &place);
    g_ptr_array_insert(by_name, (int)place, d);
}

void domain_set_id(struct domain *d, int id)
{
    if (d->id != -1)
        g_hash_table_remove(by_id, GINT_TO_POINTER(d->id));
    d->id = id;
    if (id != -1)
        g_hash_table_insert(by_id, GINT_TO_POINTER(id), d);
    last_id = MAX(last_id, id);
}

int domain_next_id(void)
{
    return last_id == G_MAXINT ? 1 : last_id + 1;
}

/* ---- finding ---- */

struct domain *domain_peek_name(const char *name)
{
    unsigned place;
    return find_place(name, &place) ? by_name->pdata[place] : NULL;
}

struct domain *domain_peek_uuid(const uint8_t uuid[16])
{
    return by_uuid ? g_hash_table_lookup(by_uuid, uuid) : NULL;
}

struct domain *domain_find_name(const char *name, GError **error)
{
    struct domain *d = domain_peek_name(name);
    if (d && !d->unborn)
        return domain_ref(d);
    ruche_error(error, MANAGER_ERR_NO_DOMAIN, "no domain with matching name '%s'", name);
    return NULL;
}

struct domain *domain_find_uuid(const uint8_t *uuid, GError **error)
{
    struct domain *d = domain_peek_uuid(uuid);
    char text[UUID_TEXT_BYTES];
    if (d && !d->unborn)
        return domain_ref(d);
    uuid_format(uuid, text);
    ruche_error(error, MANAGER_ERR_NO_DOMAIN, "no domain with matching uuid '%s'", text);
    return NULL;
}

struct domain *domain_find_id(int id, GError **error)
{
    struct domain *d = by_id ? g_hash_table_lookup(by_id, GINT_TO_POINTER(id)) : NULL;
    if (d)
        return domain_ref(d);
    ruche_error(error, MANAGER_ERR_NO_DOMAIN, "no domain with matching id %d", id);
    return NULL;
}

const struct domain_summary *domain_summary(const struct domain *d)
{
    return d->live ? &d->live->s : &d->def->s;
}

const GPtrArray *domain_table(void)
{
    if (!by_name)
        table_init();
    return by_name;
}

/* ---- lists ---- */

/* virConnectListAllDomainsFlags: groups of bits; in each, none set means all. */
enum {
    LIST_ACTIVE = 1 << 0,
    LIST_INACTIVE = 1 << 1,
    LIST_PERSISTENT = 1 << 2,
    LIST_TRANSIENT = 1 << 3,
    LIST_RUNNING = 1 << 4,
    LIST_PAUSED = 1 << 5,
    LIST_SHUTOFF = 1 << 6,
    LIST_OTHER = 1 << 7,
    LIST_SAVED = 1 << 8,
    LIST_NOT_SAVED = 1 << 9,
    LIST_AUTOSTART = 1 << 10,
    LIST_NO_AUTOSTART = 1 << 11,
    LIST_SNAPSHOT = 1 << 12,
    LIST_NO_SNAPSHOT = 1 << 13,
    LIST_CHECKPOINT = 1 << 14,
    LIST_NO_CHECKPOINT = 1 << 15
};
static const unsigned list_groups[] = {
    LIST_ACTIVE | LIST_INACTIVE,
    LIST_PERSISTENT | LIST_TRANSIENT,
    LIST_RUNNING | LIST_PAUSED | LIST_SHUTOFF | LIST_OTHER,
    LIST_SAVED | LIST_NOT_SAVED,
    LIST_AUTOSTART | LIST_NO_AUTOSTART,
    LIST_SNAPSHOT | LIST_NO_SNAPSHOT,
    LIST_CHECKPOINT | LIST_NO_CHECKPOINT,
};

/* The bit of each group that is the domain's. */
static unsigned list_bits(const struct domain *d)
{
    static const unsigned of_state[DOMAIN_STATES] = {
        [DOMAIN_RUNNING] = LIST_RUNNING,
        [DOMAIN_PAUSED] = LIST_PAUSED,
        [DOMAIN_SHUTOFF] = LIST_SHUTOFF,
    };
    unsigned bits = LIST_NO_SNAPSHOT | LIST_NO_CHECKPOINT;
    bits |= domain_is_active(d) ? LIST_ACTIVE : LIST_INACTIVE;
    bits |= d->persistent ? LIST_PERSISTENT : LIST_TRANSIENT;
    bits |= of_state[d->state] ? of_state[d->state] : LIST_OTHER;
    bits |= d->managed_save ? LIST_SAVED : LIST_NOT_SAVED;
    bits |= d->autostart ? LIST_AUTOSTART : LIST_NO_AUTOSTART;
    return bits;
}

static bool list_has(const struct domain *d, unsigned flags)
{
    unsigned bits = list_bits(d);
    for (unsigned i = 0; i < G_N_ELEMENTS(list_groups); i++)
        if ((flags & list_groups[i]) && !(flags & list_groups[i] & bits))
            return false;
    return true;
}

static void unref_domain(gpointer d)
{
    domain_unref(d);
}

GPtrArray *domain_list(const struct caller *who, unsigned list_flags)
{
    const GPtrArray *all = domain_table();
    GPtrArray *list = g_ptr_array_new_full(all->len, unref_domain);
    if (!access_check(who, RIGHT_READ, "list domains", NULL))
        return list;
    for (unsigned i = 0; i < all->len; i++) {
        struct domain *d = all->pdata[i];
        if (!d->unborn && (!list_flags || list_has(d, list_flags)))
            g_ptr_array_add(list, domain_ref(d));
    }
    return list;
}

unsigned domain_count(bool active)
{
    const GPtrArray *all = domain_table();
    unsigned running = g_hash_table_size(by_id), unborn = 0;
    if (active)
        return running;
    for (unsigned i = 0; i < all->len; i++)
        unborn += ((struct domain *)all->pdata[i])->unborn;
    return all->len - running - unborn;
}

void domains_stop(void)
{
    domain_known_save();
    while (by_name && by_name->len)
        domain_table_remove(by_name->pdata[by_name->len - 1]);
    last_id = 0;
}
