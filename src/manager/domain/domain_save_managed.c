/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Managed saves: the state of a machine in a place of ours, from which its next start goes on.
 *
 * Stored    state_dir/save/NAME.save; d->managed_save says that it is there.
 * Thread    The loop thread; all but loading waits.
 */
#include "manager/domain/domain_priv.h"

#include "base/fd.h"

#include <sys/stat.h>
#include <unistd.h>

char *domain_managed_save_path(const char *name)
{
    return g_strdup_printf("%s/save/%s.save", manager.state_dir, name);
}

void domain_managed_save_load(void)
{
    g_autofree char *dir = g_build_filename(manager.state_dir, "save", NULL);
    const GPtrArray *all = domain_table();
    store_clean_dir(dir);
    for (unsigned i = 0; i < all->len; i++) {
        struct domain *d = all->pdata[i];
        g_autofree char *path = domain_managed_save_path(d->name);
        d->managed_save = access(path, F_OK) == 0;
    }
}

/* ---- save ---- */

static bool save_locked(struct domain *d, unsigned flags, struct job *shown, GError **error)
{
    g_autofree char *dir = g_build_filename(manager.state_dir, "save", NULL),
                    *path = domain_managed_save_path(d->name);
    if (!domain_may(d, OP_SAVE, error) || !domain_machine(d, error))
        return false;
    if (!d->persistent)
        return ruche_error(error, RUCHE_ERR_STATE,
                           "cannot do managed save for transient domain '%s'", d->name);
    if (g_mkdir_with_parents(dir, 0700) < 0)
        return ruche_error_errno(error, errno, "folder '%s'", dir);
    if (!domain_save_locked(d, path, NULL, flags, shown, error))
        return false;
    d->managed_save = true;
    return true;
}

bool domain_managed_save(const struct caller *who, struct domain *d, unsigned save_flags,
                         struct job *shown, GError **error)
{
    const unsigned known = SAVE_BYPASS_CACHE | SAVE_AS_RUNNING | SAVE_AS_PAUSED,
                   both = SAVE_AS_RUNNING | SAVE_AS_PAUSED;
    if (!domain_flags(save_flags, known, "managedsave", error))
        return false;
    if ((save_flags & both) == both)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "managedsave: 'running' and 'paused' exclude each other");
    if (!domain_allowed(who, d, RIGHT_CONTROL, "save", error) || !domain_may(d, OP_SAVE, error) ||
        !domain_lock(d, "save", error))
        return false;
    bool ok = save_locked(d, save_flags, shown, error);
    domain_unlock(d);
    domain_audit(who, "managed save", d->name, ok, error);
    return ok;
}

/* ---- start ---- */

bool domain_managed_save_drop(struct domain *d, GError **error)
{
    g_autofree char *path = domain_managed_save_path(d->name);
    if (!store_remove(path, error))
        return false;
    d->managed_save = false;
    return true;
}

bool domain_managed_save_start(struct domain *d, unsigned start_flags, GError **error)
{
    g_autofree char *path = domain_managed_save_path(d->name);
    auto_domain_def *def = NULL;
    bool runs = false;
    if (start_flags & START_FORCE_BOOT)
        return domain_managed_save_drop(d, error) &&
               domain_run(d, d->def, start_flags & START_PAUSED, error);
    autofd fd = domain_save_open(path, &def, &runs, error);
    if (fd >= 0 &&
        domain_restore_run(d, def, fd, !runs || (start_flags & START_PAUSED), path, NULL, error))
        return true;
    g_prefix_error(error,
                   "domain '%s' has a managed save, which cannot be restored (to boot anew, start "
                   "it with --force-boot): ",
                   d->name);
    return false;
}

/* ---- what there is ---- */

/* With the lock. False: there is none. */
static bool lock_saved(struct domain *d, const char *operation, GError **error)
{
    if (!domain_lock(d, operation, error))
        return false;
    if (d->managed_save)
        return true;
    domain_unlock(d);
    return ruche_error(error, RUCHE_ERR_STATE, "domain '%s' has no managed save", d->name);
}

bool domain_managed_save_remove(const struct caller *who, struct domain *d, GError **error)
{
    if (!domain_allowed(who, d, RIGHT_CONTROL, "remove the saved state of", error) ||
        !domain_lock(d, "remove the saved state of", error))
        return false;
    bool ok = domain_managed_save_drop(d, error); /* there being none is fine */
    domain_unlock(d);
    domain_audit(who, "remove managed save", d->name, ok, error);
    return ok;
}

char *domain_managed_save_xml(const struct caller *who, struct domain *d, unsigned format_flags,
                              GError **error)
{
    auto_domain_def *def = NULL;
    bool runs;
    enum right right = format_flags & DEF_FORMAT_SECURE ? RIGHT_READ_SECURE : RIGHT_READ;
    if (!domain_flags(format_flags, DEF_FORMAT_SECURE, "read a saved domain", error) ||
        !domain_allowed(who, d, right, "read", error) ||
        !lock_saved(d, "read the saved state of", error))
        return NULL;
    g_autofree char *path = domain_managed_save_path(d->name);
    autofd fd = domain_save_open(path, &def, &runs, error);
    domain_unlock(d);
    return fd >= 0 ? domain_def_format(def, format_flags | DEF_FORMAT_INACTIVE, -1) : NULL;
}

bool domain_managed_save_define(const struct caller *who, struct domain *d, const char *xml,
                                unsigned save_flags, GError **error)
{
    if (!domain_allowed(who, d, RIGHT_WRITE, "redefine the saved state of", error) ||
        !lock_saved(d, "redefine the saved state of", error))
        return false;
    g_autofree char *path = domain_managed_save_path(d->name);
    bool ok = domain_save_define(who, path, xml, save_flags, error);
    domain_unlock(d);
    return ok;
}
