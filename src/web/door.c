/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The front door of REST: the Unix socket is here from the start, the server behind it when somebody comes. HTTP, TLS and
 * what their libraries bring along are a third of an idle manager.
 *
 * Thread    The loop thread.
 */
#include "web/module.h"

#include "base/fd.h"
#include "base/log.h"
#include "base/plugin.h"
#include "base/sock.h"

#include <dlfcn.h>
#include <errno.h>
#include <glib-unix.h>
#include <grp.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODULE_FILE "ruche-web.so"

static struct {
    const struct web_config *config;
    const struct web_module *module; /* NULL: nobody has come yet */
    struct sock_path path;
    int fd; /* listens; the module's, once it is there */
    guint source;
} door = {.fd = -1};

static const struct web_module *load(GError **error)
{
    g_autofree char *path = plugin_path(RUCHE_MODULE_DIR, MODULE_FILE);
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL); /* never closed */
    const struct web_module *module = handle ? dlsym(handle, "ruche_web") : NULL;
    if (!module)
        ruche_error(error, RUCHE_ERR_UNSUPPORTED, "REST is a module that cannot be loaded: %s", dlerror());
    return module;
}

static bool start_module(GError **error)
{
    const struct web_module *module = load(error);
    if (!module || !module->start(door.config, error))
        return false;
    door.module = module;
    return true;
}

static bool hand_over(GError **error)
{
    return (door.module || start_module(error)) && door.module->serve_unix(fd_steal(&door.fd), error);
}

/* Whoever has come is told that there is nothing; the next one tries again. */
static void turn_away(void)
{
    int fd = sock_accept(door.fd);
    if (fd >= 0)
        close(fd);
}

static gboolean on_first(gint fd, GIOCondition condition, gpointer opaque)
{
    g_autoptr(GError) error = NULL;
    if (!hand_over(&error)) {
        log_error("%s", error->message);
        if (door.fd >= 0) {
            turn_away();
            return G_SOURCE_CONTINUE;
        }
    }
    door.source = 0;
    return G_SOURCE_REMOVE;
}

/* The owner, and the group's members if there is one. */
static bool set_group(const char *path, const char *name, GError **error)
{
    struct group *group = name ? getgrnam(name) : NULL;
    if (name && !group)
        return ruche_error(error, RUCHE_ERR_NOT_FOUND, "%s: there is no group '%s'", path, name);
    if ((group && chown(path, (uid_t)-1, group->gr_gid) < 0) || chmod(path, group ? 0660 : 0600) < 0)
        return ruche_error_errno(error, errno, "%s: cannot set its rights", path);
    return true;
}

static bool listen_unix(const struct web_config *c, GError **error)
{
    mode_t before = umask(0177);
    door.fd = sock_listen_unix(c->unix_path, &door.path, error);
    umask(before);
    return door.fd >= 0 && set_group(c->unix_path, c->unix_group, error);
}

/* Without it there is no door; libvirt's is another one. */
static bool module_is_there(void)
{
    g_autofree char *path = plugin_path(RUCHE_MODULE_DIR, MODULE_FILE);
    if (access(path, R_OK) == 0)
        return true;
    log_warn("REST and the command 'ruche' have no server here: %s: %s", path, g_strerror(errno));
    return false;
}

static bool open_door(const struct web_config *c, GError **error)
{
    if (c->listen && !start_module(error))
        return false;
    if (!c->unix_path || !module_is_there()) /* it comes last: who finds it finds all */
        return true;
    if (!listen_unix(c, error))
        return false;
    if (door.module)
        return hand_over(error);
    door.source = g_unix_fd_add(door.fd, G_IO_IN, on_first, NULL);
    return true;
}

bool web_start(const struct web_config *c, GError **error)
{
    door.config = c;
    if (open_door(c, error))
        return true;
    web_stop();
    return false;
}

void web_stop(void)
{
    if (door.source)
        g_source_remove(door.source);
    door.source = 0;
    if (door.module)
        door.module->stop();
    door.module = NULL;
    sock_path_remove(&door.path);
    if (door.fd >= 0)
        close(fd_steal(&door.fd));
}
