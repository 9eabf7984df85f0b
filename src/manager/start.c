/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How the manager begins and ends: kinds of objects, one after the other.
 *
 * Thread    The loop thread.
 */
#include "manager/domain/domain.h"
#include "manager/filter/filter.h"
#include "manager/interface/interface.h"
#include "manager/manager.h"
#include "manager/network/network.h"
#include "manager/node/device.h"
#include "manager/node/node.h"
#include "manager/secret/secret.h"
#include "manager/storage/pool.h"
#include "manager/store.h"

#include <errno.h>

#define FIND_TIMEOUT_MS 10000

/* The kinds of objects, in the order in which they are read and begin; they end the other way
 * round. */
static const struct part {
    bool (*load)(GError **error);
    void (*autostart)(void); /* in a task; NULL: nothing to start */
    void (*stop)(void);
} parts[] = {
    {secrets_load, NULL, secrets_stop},
    {pools_load, pools_autostart, pools_stop},
    {node_devices_load, node_devices_autostart, node_devices_stop},
    {interfaces_load, interfaces_autostart, interfaces_stop},
    {networks_load, networks_autostart, networks_stop},
    {filters_load, filters_autostart, filters_stop},
    {domains_load, domains_autostart, domains_stop},
};

static bool make_dir(const char *path, GError **error)
{
    return g_mkdir_with_parents(path, manager_dir_mode()) == 0 ||
           ruche_error_errno(error, errno, "folder %s", path);
}

static void autostart_all(void *opaque)
{
    node_start();
    for (unsigned i = 0; i < G_N_ELEMENTS(parts); i++)
        if (parts[i].autostart)
            parts[i].autostart();
}

static gboolean late(gpointer opaque)
{
    *(bool *)opaque = true;
    return G_SOURCE_CONTINUE;
}

/* Lets tasks run to their ends, or until the time is over. */
static void run_tasks(int timeout_ms)
{
    bool is_late = false;
    guint timer = g_timeout_add((guint)timeout_ms, late, &is_late);
    while (task_count() && !is_late)
        g_main_context_iteration(NULL, true);
    g_source_remove(timer);
}

bool manager_start(GError **error)
{
    const char *const dirs[] = {manager.config_dir, manager.state_dir, manager.runtime_dir,
                                manager.log_dir, manager.cache_dir};
    for (unsigned i = 0; i < G_N_ELEMENTS(dirs); i++)
        if (!make_dir(dirs[i], error))
            return false;
    g_autofree char *log = g_build_filename(manager.state_dir, "changes.log", NULL);
    if (!store_open(log, manager.config_dir, error))
        return false;
    for (unsigned i = 0; i < G_N_ELEMENTS(parts); i++)
        if (!parts[i].load(error))
            return false;
    /* Machines that ran are asked; one that does not answer keeps its task. */
    run_tasks(FIND_TIMEOUT_MS);
    task_start(autostart_all, NULL);
    return true;
}

void manager_stop(int timeout_ms)
{
    run_tasks(timeout_ms);
    for (unsigned i = G_N_ELEMENTS(parts); i--;)
        parts[i].stop();
    store_close();
}
