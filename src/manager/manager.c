/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Where things are kept by default, and who this host is.
 *
 * Thread    The loop thread, before manager_start().
 */
#include "manager/manager.h"

#include "manager/uuid.h"

#include <string.h>
#include <unistd.h>

struct manager_config manager;

/* A program that stands beside ours, else the word for PATH. */
static char *sibling(const char *name)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = self ? g_path_get_dirname(self) : NULL;
    g_autofree char *path = dir ? g_build_filename(dir, name, NULL) : NULL;
    if (path && access(path, X_OK) == 0)
        return g_steal_pointer(&path);
    char *found = g_find_program_in_path(name);
    return found ? found : g_build_filename("/usr/bin", name, NULL);
}

/* Beside our program in a build folder, else where they are installed. */
static char *recipes_dir(void)
{
    g_autofree char *self = g_file_read_link("/proc/self/exe", NULL);
    g_autofree char *dir = self ? g_path_get_dirname(self) : NULL;
    g_autofree char *path = dir ? g_build_filename(dir, "images", NULL) : NULL;
    if (path && g_file_test(path, G_FILE_TEST_IS_DIR))
        return g_steal_pointer(&path);
    return g_build_filename(RUCHE_DATADIR, "images", NULL);
}

static void host_uuid(uint8_t ret[16])
{
    static const char *const files[] = {"/sys/class/dmi/id/product_uuid", "/etc/machine-id"};
    for (unsigned i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *text = NULL;
        if (g_file_get_contents(files[i], &text, NULL, NULL) && uuid_parse(g_strstrip(text), ret) &&
            uuid_is_valid(ret))
            return;
    }
    uuid_random(ret);
}

static void system_dirs(void)
{
    manager.config_dir = g_strdup("/etc/ruche");
    manager.state_dir = g_strdup("/var/lib/ruche");
    manager.runtime_dir = g_strdup("/run/ruche");
    manager.log_dir = g_strdup("/var/log/ruche");
    manager.cache_dir = g_strdup("/var/cache/ruche");
}

static void session_dirs(void)
{
    manager.config_dir = g_build_filename(g_get_user_config_dir(), "ruche", NULL);
    manager.state_dir = g_build_filename(g_get_user_data_dir(), "ruche", NULL);
    manager.runtime_dir = g_build_filename(g_get_user_runtime_dir(), "ruche", NULL);
    manager.log_dir = g_build_filename(manager.state_dir, "log", NULL);
    manager.cache_dir = g_build_filename(g_get_user_cache_dir(), "ruche", NULL);
}

unsigned manager_dir_mode(void)
{
    return manager.session && !manager.user ? 0700 : 0711;
}

void manager_config_done(void)
{
    char *const strings[] = {manager.config_dir,
                             manager.state_dir,
                             manager.runtime_dir,
                             manager.log_dir,
                             manager.cache_dir,
                             manager.vmm,
                             manager.img,
                             manager.recipes,
                             manager.user,
                             manager.group,
                             manager.uri,
                             manager.migration_address,
                             manager.migration_host,
                             manager.ovsdb,
                             manager.tls_dir,
                             manager.tls_secret,
                             manager.ovsdb_key,
                             manager.ovsdb_certificate,
                             manager.ovsdb_ca};
    for (unsigned i = 0; i < G_N_ELEMENTS(strings); i++)
        g_free(strings[i]);
    memset(&manager, 0, sizeof(manager));
}

void manager_config_init(bool session)
{
    manager_config_done();
    manager.session = session;
    if (session)
        session_dirs();
    else
        system_dirs();
    manager.vmm = sibling("ruche-vmm");
    manager.img = sibling("ruche-img");
    manager.recipes = recipes_dir();
    manager.start_parallel = CLAMP(g_get_num_processors() / 2, 1, 16);
    manager.uri = g_strdup(session ? "qemu:///session" : "qemu:///system");
    host_uuid(manager.host_uuid);
}
