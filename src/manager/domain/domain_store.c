/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Domains on disk: descriptions, autostart links, and the status file of each that runs.
 *
 * Format    A status file is <domstatus state= reason= id= starting= fakereboot= agenttimeout=>,
 *           the element of vm_status(), the live <domain>.
 * Cut off   What a killed daemon leaves is brought in order here, at the start: temporary files
 *           go; of two files with one UUID (a rename) the newer one stays; links to nothing go; a
 *           start that was not finished is taken back (nobody was told that it was); a machine
 *           that ended meanwhile is not running.
 */
#include "manager/domain/domain_priv.h"

#include "base/log.h"
#include "manager/manager.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STATUS_MAX_BYTES (8u << 20)

static char *def_path(const char *name)
{
    return g_strdup_printf("%s/domains/%s.xml", manager.config_dir, name);
}

static char *autostart_path(const char *name)
{
    return g_strdup_printf("%s/autostart/%s.xml", manager.config_dir, name);
}

static char *status_path(const char *name)
{
    return g_strdup_printf("%s/domains/%s.xml", manager.runtime_dir, name);
}

bool domain_store_def(const char *name, struct domain_def *def, GError **error)
{
    g_autofree char *path = def_path(name);
    return store_write(path, def->text, 0600, error);
}

bool domain_forget_def(const char *name, GError **error)
{
    g_autofree char *path = def_path(name), *link = autostart_path(name);
    if (!store_remove(path, error))
        return false;
    store_remove(link, NULL); /* one that stays leads to nothing, and goes at the next start */
    return true;
}

bool domain_store_autostart(const char *name, bool on, GError **error)
{
    g_autofree char *link = autostart_path(name),
                    *target = g_strdup_printf("../domains/%s.xml", name);
    return on ? store_link(link, target, error) : store_remove(link, error);
}

/* ---- the status file ---- */

bool domain_write_status(struct domain *d, bool starting, GError **error)
{
    struct xml_node *root = xml_new("domstatus");
    g_autoptr(GString) text = g_string_new(NULL);
    xml_set_f(root, "@state", "%d", d->state);
    xml_set_f(root, "@reason", "%d", d->reason);
    xml_set_f(root, "@id", "%d", d->id);
    if (starting)
        xml_set(root, "@starting", "yes");
    if (d->fake_reboot)
        xml_set(root, "@fakereboot", "yes");
    if (d->agent_timeout != AGENT_DEFAULT)
        xml_set_f(root, "@agenttimeout", "%d", d->agent_timeout);
    domain_job_status(d, root);
    domain_migrate_status(d, root);
    if (d->vm)
        vm_status(d->vm, root);
    g_autofree char *head = xml_format(root, 0), *path = status_path(d->name);
    xml_free(root);
    /* The live description is text already: it goes before the end tag, whichever form the head
     * has. */
    g_strchomp(head);
    g_string_append(text, head);
    if (g_str_has_suffix(head, "/>")) {
        g_string_truncate(text, text->len - 2);
        g_string_append(text, ">\n");
    } else {
        g_string_truncate(text, text->len - strlen("</domstatus>"));
    }
    g_string_append(text, d->live->text);
    g_string_append(text, "</domstatus>\n");
    return store_write_volatile(path, text->str, 0600, error);
}

void domain_remove_status(const struct domain *d)
{
    g_autofree char *path = status_path(d->name);
    if (unlink(path) < 0 && errno != ENOENT)
        log_warn("%s: could not be removed: %s", path, g_strerror(errno));
}

/* ---- reading what is stored ---- */

/* For each file NAME.xml of the folder: fn(NAME, path). */
static void for_files(const char *parent, const char *folder,
                      void (*fn)(const char *name, const char *path))
{
    g_autofree char *dir = g_build_filename(parent, folder, NULL);
    g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
    store_clean_dir(dir);
    for (const char *file; d && (file = g_dir_read_name(d));) {
        if (*file == '.' || !g_str_has_suffix(file, ".xml"))
            continue;
        g_autofree char *name = g_strndup(file, strlen(file) - strlen(".xml")),
                        *path = g_build_filename(dir, file, NULL);
        fn(name, path);
    }
}

static bool is_newer(const char *path, const char *other)
{
    struct stat a, b;
    if (stat(path, &a) < 0 || stat(other, &b) < 0)
        return false;
    return a.st_mtim.tv_sec != b.st_mtim.tv_sec ? a.st_mtim.tv_sec > b.st_mtim.tv_sec
                                                : a.st_mtim.tv_nsec > b.st_mtim.tv_nsec;
}

/* Two files with one UUID: a rename was cut off after the new one was written. True: `d` is
 * replaced by the new name. */
static bool settle_rename(struct domain *d, const char *name, const char *path)
{
    g_autofree char *other = def_path(d->name), *other_link = autostart_path(d->name),
                    *link = autostart_path(name);
    g_autofree char *target = g_strdup_printf("../domains/%s.xml", name);
    bool newer = is_newer(path, other);
    log_warn("domain '%s' and '%s' have one UUID: '%s', which is older, is removed", d->name, name,
             newer ? d->name : name);
    if (newer && g_file_test(other_link, G_FILE_TEST_IS_SYMLINK) && symlink(target, link) < 0 &&
        errno != EEXIST)
        log_warn("%s: %s", link, g_strerror(errno));
    unlink(newer ? other
                 : path); /* its link leads to nothing now, and goes with load_autostart() */
    if (!newer)
        return false;
    domain_table_remove(d);
    return true;
}

static struct domain_def *parse_stored(const char *text, GError **error)
{
    size_t len = strlen(text);
    return domain_known(text, len) ? domain_def_own(text, len, error)
                                   : domain_def_parse(text, len, DEF_STORED, error);
}

static void load_def(const char *name, const char *path)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = store_read(path, XML_MAX_BYTES, &error);
    auto_domain_def *def = text ? parse_stored(text, &error) : NULL;
    if (!def) {
        log_warn("%s is left alone: %s", path, error->message);
        return;
    }
    if (strcmp(def->s.name, name) != 0) {
        log_warn("%s is left alone: it describes domain '%s'", path, def->s.name);
        return;
    }
    struct domain *same = domain_peek_uuid(def->s.uuid);
    if (same && !settle_rename(same, name, path))
        return;
    auto_domain *d = domain_new(name, def->s.uuid);
    domain_def_shrink(def);
    d->def = g_steal_pointer(&def);
    d->persistent = true;
    domain_table_add(d);
}

static void load_autostart(const char *name, const char *path)
{
    struct domain *d = domain_peek_name(name);
    if (d)
        d->autostart = true;
    else if (!g_file_test(path, G_FILE_TEST_EXISTS))
        unlink(path);
}

/* ---- finding what runs ---- */

static bool check_status(const struct xml_node *root, const char *path,
                         struct xml_node **ret_domain)
{
    uint64_t state = xml_get_u64(root, "@state", DOMAIN_STATES), id = xml_get_u64(root, "@id", 0);
    *ret_domain = xml_find(root, "domain");
    if (*ret_domain && state > DOMAIN_NOSTATE && state < DOMAIN_STATES && id > 0 && id <= G_MAXINT)
        return true;
    log_warn("%s is not a status file, and is removed", path);
    return false;
}

/* The domain that a status file speaks of: a defined one, or a transient one that is made. */
static struct domain *domain_of_status(const char *name, struct xml_node *root,
                                       struct xml_node *element)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = xml_format(element, 0);
    auto_domain_def *live = domain_def_parse(text, strlen(text), DEF_STORED | DEF_LIVE, &error);
    if (!live || strcmp(live->s.name, name) != 0) {
        log_warn("domain '%s' ran and cannot be read again: %s", name,
                 live ? "its name is another" : error->message);
        return NULL;
    }
    auto_domain *d = domain_find_uuid(live->s.uuid, NULL);
    if (d && strcmp(d->name, name) != 0) {
        log_warn("domain '%s' ran, and is defined as '%s' now", name, d->name);
        return NULL;
    }
    if (!d) {
        d = domain_new(name, live->s.uuid);
        if (!domain_table_add(d)) /* another has taken the name */
            return NULL;
    }
    domain_def_unref(d->live);
    d->live = g_steal_pointer(&live);
    domain_set_id(d, (int)xml_get_u64(root, "@id", 0));
    d->state = (enum domain_state)xml_get_u64(root, "@state", 0);
    d->reason = (int)xml_get_u64(root, "@reason", 0);
    d->fake_reboot = xml_is(root, "@fakereboot", "yes");
    if (xml_get(root, "@agenttimeout"))
        d->agent_timeout = (int)g_ascii_strtoll(xml_get(root, "@agenttimeout"), NULL, 10);
    return g_steal_pointer(&d);
}

struct attach {
    struct domain *d;
    struct xml_node *status;
};

/* With the lock, which each of these gives back. */
static void found(struct domain *d, const struct xml_node *root)
{
    domain_catch_up(d);
    if (domain_migrate_recover(d, root))
        return;
    if (domain_job_recover(d, root)) {
        domain_over(d, SHUTOFF_SAVED, STOPPED_SAVED);
    } else {
        vm_catch_up(d->vm);
        domain_ports_settle(d, AGENT_STARTED);
        domain_block_jobs_settle(d);
    }
    domain_unlock(d);
}

static void lost(struct domain *d, const struct xml_node *root, const GError *why)
{
    log_info("domain '%s' does not run any more%s%s", d->name, why ? ": " : "",
             why ? why->message : "");
    vm_clean(d);
    if (domain_migrate_recover(d, root))
        return;
    bool saved = domain_job_recover(d, root);
    domain_over(d, saved ? SHUTOFF_SAVED : SHUTOFF_UNKNOWN, saved ? STOPPED_SAVED : STOPPED_FAILED);
    domain_unlock(d);
}

static void attach(void *opaque)
{
    struct attach a = *(struct attach *)opaque;
    auto_domain *d = a.d;
    struct xml_node *root = a.status;
    g_autoptr(GError) error = NULL;
    if (domain_lock(d, "find the machine of", NULL)) {
        struct vm *v = xml_is(root, "@starting", "yes") ? NULL : vm_attach(d, root, &error);
        domain_set_vm(d, v);
        if (v)
            found(d, root);
        else
            lost(d, root, error);
    }
    if (d->live)
        domain_def_shrink(d->live);
    xml_free(a.status);
}

static void load_status(const char *name, const char *path)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *text = store_read(path, STATUS_MAX_BYTES, &error);
    auto_xml *root = text ? xml_parse(text, strlen(text), "domstatus", &error) : NULL;
    struct xml_node *element;
    if (!root)
        log_warn("%s: %s", path, error->message);
    struct domain *d =
        root && check_status(root, path, &element) ? domain_of_status(name, root, element) : NULL;
    if (!d) {
        unlink(path);
        return;
    }
    struct attach a = {.d = d, .status = g_steal_pointer(&root)};
    task_start(attach, &a); /* which copies it before it waits */
}

static bool make_folder(const char *parent, const char *folder, GError **error)
{
    g_autofree char *path = g_build_filename(parent, folder, NULL);
    return g_mkdir_with_parents(path, 0700) == 0 ||
           ruche_error_errno(error, errno, "folder %s", path);
}

bool domains_load(GError **error)
{
    if (!make_folder(manager.config_dir, "domains", error) ||
        !make_folder(manager.config_dir, "autostart", error) ||
        !make_folder(manager.runtime_dir, "domains", error))
        return false;
    caller_on_done(domain_autodestroy);
    domain_known_load();
    for_files(manager.config_dir, "domains", load_def);
    domain_known_save();
    for_files(manager.config_dir, "autostart", load_autostart);
    domain_managed_save_load();
    for_files(manager.runtime_dir, "domains", load_status);
    return true;
}
