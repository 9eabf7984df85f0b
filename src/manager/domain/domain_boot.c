/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Autostart: once per boot of the host, in the order of names, a few at a time.
 *
 * Thread    The loop thread, in tasks.
 * Stored    runtime_dir/autostarted: the boot's id, written when all were tried, so that a daemon
 * that is killed among them goes on where it was (what runs is not started again).
 */
#include "manager/domain/domain_priv.h"

#include "base/log.h"
#include "manager/manager.h"

#include <string.h>

static char *boot_id(void)
{
    char *id = NULL;
    if (!g_file_get_contents("/proc/sys/kernel/random/boot_id", &id, NULL, NULL))
        return g_strdup("unknown");
    return g_strstrip(id);
}

/* The list that its tasks take from. */
struct queue {
    GPtrArray *domains;
    unsigned next, running;
    struct task_event done;
};

static void starter(void *opaque)
{
    struct queue *q = opaque;
    q->running++;
    while (q->next < q->domains->len) {
        struct domain *d = q->domains->pdata[q->next++];
        g_autoptr(GError) error = NULL;
        if (d->autostart && !domain_is_active(d) && !domain_start(&caller_self, d, 0, &error))
            log_warn("domain '%s' could not be started with the host: %s", d->name, error->message);
    }
    if (!--q->running)
        task_event_happen(&q->done);
}

void domains_autostart(void)
{
    g_autofree char *path = g_build_filename(manager.runtime_dir, "autostarted", NULL),
                    *boot = boot_id();
    g_autofree char *before = store_read(path, 4096, NULL);
    g_autoptr(GError) error = NULL;
    if (before && strcmp(before, boot) == 0)
        return;
    struct queue q = {.domains = domain_list(&caller_self, 0)};
    for (unsigned i = 0; i < MAX(manager.start_parallel, 1); i++)
        task_start(starter, &q);
    task_event_wait(&q.done, -1);
    g_ptr_array_unref(q.domains);
    if (!store_write_volatile(path, boot, 0600, &error))
        log_warn("%s", error->message);
}
