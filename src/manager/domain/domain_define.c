/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How domains come, are called, and go: define, create, undefine, rename, autostart.
 *
 * Thread    The loop thread; all here waits.
 * Names     A domain that is being defined stands in the table (`unborn`) while its file is
 * written: so nobody else takes its name or UUID, and nobody finds it before it is there.
 */
#include "manager/domain/domain_priv.h"
#include "manager/uuid.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

enum { DEFINE_VALIDATE = 1 };
enum {
    UNDEFINE_MANAGED_SAVE = 1,
    UNDEFINE_SNAPSHOTS = 2,
    UNDEFINE_NVRAM = 4,
    UNDEFINE_KEEP_NVRAM = 8,
    UNDEFINE_CHECKPOINTS = 16,
    UNDEFINE_TPM = 32,
    UNDEFINE_KEEP_TPM = 64,
    UNDEFINE_ALL = 127
};

struct domain_def *domain_def_for_us(const char *xml, bool validate, GError **error)
{
    auto_domain_def *def = domain_def_parse(xml, strlen(xml), validate ? DEF_VALIDATE : 0, error);
    if (!def || !store_name_check("domain", def->s.name, error) ||
        !domain_check_lifecycle(def, error))
        return NULL;
    auto_domain_def *fit = vm_fit_def(def, error);
    if (!fit || !vm_check_def(fit, error))
        return NULL;
    return g_steal_pointer(&fit);
}

/* The domain that this description is of, NULL: of none. False: name or UUID are another's. */
static bool find_same(const struct domain_def *def, struct domain **ret, GError **error)
{
    struct domain *same = domain_peek_uuid(def->s.uuid), *named = domain_peek_name(def->s.name);
    char uuid[UUID_TEXT_BYTES];
    if (same && same != named) {
        uuid_format(def->s.uuid, uuid);
        return ruche_error(error, RUCHE_ERR_EXISTS, "domain '%s' is already defined with uuid %s",
                           same->name, uuid);
    }
    if (named && !same) {
        uuid_format(named->uuid, uuid);
        return ruche_error(error, RUCHE_ERR_EXISTS, "domain '%s' already exists with uuid %s",
                           named->name, uuid);
    }
    *ret = same ? domain_ref(same) : NULL;
    return true;
}

struct domain *domain_claim(struct domain_def *def, const char *operation, GError **error)
{
    for (;;) {
        auto_domain *d = NULL;
        g_autoptr(GError) why = NULL;
        if (!find_same(def, &d, error))
            return NULL;
        if (!d) {
            d = domain_new(def->s.name, def->s.uuid);
            d->unborn = true;
            domain_table_add(d);
        }
        if (domain_lock(d, operation, &why)) {
            if (strcmp(d->name, def->s.name) == 0)
                return g_steal_pointer(&d);
            domain_unlock(d); /* renamed while we waited: look again */
        } else if (!g_error_matches(why, RUCHE_ERROR, MANAGER_ERR_NO_DOMAIN)) {
            g_propagate_error(error, g_steal_pointer(&why));
            return NULL;
        } /* else it went while we waited */
    }
}

void domain_release(struct domain *d)
{
    if (d->unborn)
        domain_table_remove(d);
    domain_unlock(d);
}

static gboolean shrink(gpointer def)
{
    domain_def_shrink(def);
    return G_SOURCE_REMOVE;
}

static void unref(gpointer def)
{
    domain_def_unref(def);
}

bool domain_store_locked(struct domain *d, struct domain_def *def, GError **error)
{
    bool was_defined = d->def != NULL;
    /* Its tree is taken down while the disk is busy. */
    g_idle_add_full(G_PRIORITY_DEFAULT, shrink, domain_def_ref(def), unref);
    if (!domain_store_def(d->name, def, error))
        return false;
    domain_def_unref(d->def);
    d->def = domain_def_ref(def);
    d->persistent = true;
    d->unborn = false;
    domain_emit(d, LIFE_DEFINED, was_defined ? DEFINED_UPDATED : DEFINED_ADDED);
    return true;
}

struct domain *domain_define(const struct caller *who, const char *xml, unsigned define_flags,
                             GError **error)
{
    g_autoptr(GError) why = NULL;
    if (!domain_flags(define_flags, DEFINE_VALIDATE, "define", error) ||
        !access_check(who, RIGHT_WRITE, "define a domain", error))
        return NULL;
    auto_domain_def *def = domain_def_for_us(xml, define_flags & DEFINE_VALIDATE, &why);
    auto_domain *d = def ? domain_claim(def, "define", &why) : NULL;
    bool ok = d && domain_store_locked(d, def, &why);
    if (d)
        domain_release(d);
    domain_audit(who, "define", def ? def->s.name : "?", ok, &why);
    if (!ok)
        g_propagate_error(error, g_steal_pointer(&why));
    return ok ? g_steal_pointer(&d) : NULL;
}

/* ---- create ---- */

static bool create_claimed(const struct caller *who, struct domain *d, struct domain_def *def,
                           unsigned start_flags, GError **error)
{
    if (domain_is_active(d))
        return ruche_error(error, RUCHE_ERR_STATE, "domain is already active as '%s'", d->name);
    d->unborn = false; /* from here on it can be seen, as one that is starting */
    bool ok = domain_run(d, def, start_flags & START_PAUSED, error);
    if (ok && (start_flags & START_AUTODESTROY))
        d->autodestroy = who;
    if (!ok && !d->persistent)
        d->unborn = true; /* release() takes it away */
    return ok;
}

struct domain *domain_create_xml(const struct caller *who, const char *xml, unsigned start_flags,
                                 GError **error)
{
    const unsigned known = START_PAUSED | START_AUTODESTROY | START_VALIDATE | START_BYPASS_CACHE |
                           START_FORCE_BOOT | START_RESET_NVRAM;
    g_autoptr(GError) why = NULL;
    if (!domain_flags(start_flags, known, "create", error) ||
        !access_check(who, RIGHT_WRITE, "create a domain", error))
        return NULL;
    auto_domain_def *def = domain_def_for_us(xml, start_flags & START_VALIDATE, &why);
    auto_domain *d = def ? domain_claim(def, "create", &why) : NULL;
    bool ok = d && create_claimed(who, d, def, start_flags, &why);
    if (d)
        domain_release(d);
    domain_audit(who, "create", def ? def->s.name : "?", ok, &why);
    if (!ok)
        g_propagate_error(error, g_steal_pointer(&why));
    return ok ? g_steal_pointer(&d) : NULL;
}

/* ---- as a command line ---- */

char *domain_native(const struct caller *who, const char *format, const char *xml, GError **error)
{
    if (g_strcmp0(format, "qemu-argv") != 0) {
        ruche_error(error, RUCHE_ERR_INVALID, "unsupported config type %s", format);
        return NULL;
    }
    auto_domain_def *def = access_check(who, RIGHT_WRITE, "read a command line", error)
                               ? domain_def_for_us(xml, false, error)
                               : NULL;
    return def ? vm_native(def, error) : NULL;
}

/* ---- undefine ---- */

/* The firmware's variables go with the domain only when that is asked for, and stay only when that
 * is. */
static bool settle_nvram(struct domain *d, unsigned flags, GError **error)
{
    if (!strstr(d->def->text, "<nvram"))
        return true; /* as good as all: nothing has to be parsed */
    const char *nvram = xml_get(domain_def_tree(d->def), "os/nvram");
    bool is_there = nvram && *nvram && access(nvram, F_OK) == 0;
    bool ok = true;
    if (is_there && !(flags & (UNDEFINE_NVRAM | UNDEFINE_KEEP_NVRAM)))
        ok = ruche_error(error, RUCHE_ERR_STATE, "cannot undefine domain with nvram: '%s' has '%s'",
                         d->name, nvram);
    else if (is_there && (flags & UNDEFINE_NVRAM) && unlink(nvram) < 0)
        ok = ruche_error_errno(error, errno, "failed to remove nvram '%s'", nvram);
    domain_def_shrink(d->def);
    return ok;
}

static bool undefine_locked(struct domain *d, unsigned flags, GError **error)
{
    if (!d->persistent)
        return ruche_error(error, RUCHE_ERR_STATE, "cannot undefine transient domain '%s'",
                           d->name);
    if (d->managed_save && !(flags & UNDEFINE_MANAGED_SAVE))
        return ruche_error(error, RUCHE_ERR_STATE,
                           "domain '%s' has a managed save: undefine it with that "
                           "(--managed-save), or start it first",
                           d->name);
    if (!domain_is_active(d) && !settle_nvram(d, flags, error))
        return false;
    if (d->managed_save && !domain_managed_save_drop(d, error))
        return false;
    if (!domain_forget_def(d->name, error))
        return false;
    d->persistent = d->autostart = false;
    if (!domain_is_active(d)) {
        domain_emit(d, LIFE_UNDEFINED, UNDEFINED_REMOVED);
        domain_table_remove(d); /* d->def stays as long as somebody holds the domain */
        return true;
    }
    g_clear_pointer(&d->def, domain_def_unref);
    domain_emit(d, LIFE_UNDEFINED, UNDEFINED_REMOVED);
    return true;
}

bool domain_undefine(const struct caller *who, struct domain *d, unsigned undefine_flags,
                     GError **error)
{
    const unsigned f = undefine_flags;
    if (!domain_flags(f, UNDEFINE_ALL, "undefine", error) ||
        !domain_allowed(who, d, RIGHT_WRITE, "undefine", error))
        return false;
    if ((f & UNDEFINE_NVRAM && f & UNDEFINE_KEEP_NVRAM) ||
        (f & UNDEFINE_TPM && f & UNDEFINE_KEEP_TPM))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "undefine '%s': to keep and to remove exclude each other", d->name);
    if (!domain_lock(d, "undefine", error))
        return false;
    bool ok = undefine_locked(d, f, error);
    domain_unlock(d);
    domain_audit(who, "undefine", d->name, ok, error);
    return ok;
}

/* ---- rename ---- */

static bool may_rename(struct domain *d, const char *name, GError **error)
{
    if (!store_name_check("domain", name, error))
        return false;
    if (domain_is_active(d))
        return ruche_error(error, RUCHE_ERR_STATE, "cannot rename active domain '%s'", d->name);
    if (!d->persistent)
        return ruche_error(error, RUCHE_ERR_STATE, "cannot rename transient domain '%s'", d->name);
    if (d->managed_save)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "cannot rename domain '%s': it has a managed save", d->name);
    if (strcmp(name, d->name) == 0)
        return ruche_error(error, RUCHE_ERR_INVALID, "can't rename domain '%s' to itself", name);
    if (domain_peek_name(name))
        return ruche_error(error, RUCHE_ERR_EXISTS, "domain with name '%s' already exists", name);
    return true;
}

/* The new file, its link, and only then the old ones' removal: cut off between, the newer one
 * stays. */
static bool rename_files(struct domain *d, struct domain_def *def, GError **error)
{
    if (!domain_store_def(def->s.name, def, error))
        return false;
    if ((!d->autostart || domain_store_autostart(def->s.name, true, error)) &&
        domain_forget_def(d->name, error))
        return true;
    domain_forget_def(def->s.name, NULL);
    return false;
}

static bool rename_locked(struct domain *d, const char *name, GError **error)
{
    uint8_t nobodys[16];
    if (!may_rename(d, name, error))
        return false;
    auto_domain_def *def = domain_def_rename(d->def, name, NULL, error);
    if (!def)
        return false;
    uuid_random(nobodys);
    auto_domain *claims = domain_new(name, nobodys); /* holds the name while files move */
    claims->unborn = true;
    domain_table_add(claims);
    bool ok = rename_files(d, def, error);
    domain_table_remove(claims);
    if (!ok)
        return false;
    domain_def_shrink(def);
    domain_emit(d, LIFE_UNDEFINED, UNDEFINED_RENAMED);
    domain_table_rename(d, name);
    domain_def_unref(d->def);
    d->def = g_steal_pointer(&def);
    domain_emit(d, LIFE_DEFINED, DEFINED_RENAMED);
    return true;
}

bool domain_rename(const struct caller *who, struct domain *d, const char *name, GError **error)
{
    g_autofree char *old = g_strdup(d->name);
    if (!domain_allowed(who, d, RIGHT_WRITE, "rename", error) || !domain_lock(d, "rename", error))
        return false;
    bool ok = rename_locked(d, name, error);
    domain_unlock(d);
    domain_audit(who, "rename", old, ok, error);
    return ok;
}

/* ---- autostart ---- */

bool domain_set_autostart(const struct caller *who, struct domain *d, bool on, GError **error)
{
    if (!domain_allowed(who, d, RIGHT_WRITE, "set autostart of", error) ||
        !domain_lock(d, "autostart", error))
        return false;
    bool ok =
        d->persistent || ruche_error(error, RUCHE_ERR_STATE,
                                     "cannot set autostart for transient domain '%s'", d->name);
    if (ok && d->autostart != on) {
        ok = domain_store_autostart(d->name, on, error);
        if (ok)
            d->autostart = on;
    }
    domain_unlock(d);
    domain_audit(who, on ? "autostart on" : "autostart off", d->name, ok, error);
    return ok;
}
