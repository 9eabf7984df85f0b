/* SPDX-License-Identifier: GPL-2.0-or-later */
/* PCI devices between the host's drivers and vfio-pci.
 *
 * Spec      Documentation/ABI/testing/sysfs-bus-pci (driver_override, reset),
 *           Documentation/driver-api/vfio.rst.
 * Thread    The loop thread, in a task; writes to /sys, which wait for drivers, on workers.
 */
#include "manager/node/device.h"
#include "manager/node/sysfs.h"

#include <string.h>

#define VFIO "vfio-pci"
enum { WAIT_STEPS = 500, STEP_US = 10000, MODPROBE_MS = 60000, OUTPUT_MAX = 65536 };

static char *driver_of(const char *path)
{
    g_autofree char *file = g_strdup_printf("%s/driver", path), *full = sysfs_path(file),
                    *link = g_file_read_link(full, NULL);
    return link ? g_path_get_basename(link) : NULL;
}

/* ---- drivers ---- */

struct bind_work {
    const char *path;
    const char *driver; /* NULL: the host's own */
    GError *error;
};

/* The kernel is done when the write ends, mostly: a link that is still there is looked at after
 * pauses, which is not worth a socket of uevents. */
static bool unbind(const char *path, const char *address, GError **error)
{
    g_autofree char *driver = driver_of(path);
    g_autofree char *file =
        driver ? g_strdup_printf("/sys/bus/pci/drivers/%s/unbind", driver) : NULL;
    if (file && !sysfs_write(file, address, error))
        return false;
    for (int i = 0; driver && i < WAIT_STEPS; i++) {
        g_autofree char *now = driver_of(path);
        if (g_strcmp0(now, driver) != 0)
            return true;
        g_usleep(STEP_US);
    }
    return !driver || ruche_error(error, RUCHE_ERR_IO, "driver '%s' does not let go of it", driver);
}

/* Without an override the kernel's choice counts, which may be none. Pauses as
 * above. */
static bool probe(const char *path, const char *address, const char *driver, GError **error)
{
    g_autoptr(GError) inner = NULL;
    if (!sysfs_write("/sys/bus/pci/drivers_probe", address, &inner) && driver) {
        g_propagate_error(error, g_steal_pointer(&inner));
        return false;
    }
    for (int i = 0; driver && i < WAIT_STEPS; i++) {
        g_autofree char *now = driver_of(path);
        if (!g_strcmp0(now, driver))
            return true;
        if (now)
            break;
        g_usleep(STEP_US);
    }
    return !driver || ruche_error(error, RUCHE_ERR_IO, "driver '%s' does not take it", driver);
}

static bool rebind(const char *path, const char *driver, GError **error)
{
    g_autofree char *address = g_path_get_basename(path),
                    *override = g_strdup_printf("%s/driver_override", path);
    return sysfs_write(override, driver ? driver : "\n", error) && unbind(path, address, error) &&
           probe(path, address, driver, error);
}

static void bind_work(void *opaque)
{
    struct bind_work *w = opaque;
    if (!rebind(w->path, w->driver, &w->error) && w->driver)
        rebind(w->path, NULL, NULL);
}

/* ---- who may have it ---- */

static bool check_pci(const struct node_device *d, const char *what, GError **error)
{
    uint64_t class = 0;
    if (d->kind != DEVICE_PCI)
        return ruche_error(
            error, RUCHE_ERR_UNSUPPORTED,
            "node device '%s' is no PCI device, and cannot be %s: that is not supported", d->name,
            what);
    if (sysfs_read_u64(&class, "%s/class", d->path) && class >> 16 == 0x06)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "node device '%s' is a bridge of the host, and cannot be %s", d->name,
                           what);
    return true;
}

static bool check_iommu(const struct node_device *d, GError **error)
{
    g_autofree char *group = g_strdup_printf("%s/iommu_group", d->path), *without = NULL;
    if (sysfs_exists(group))
        return true;
    without = sysfs_read("/sys/module/vfio/parameters/enable_unsafe_noiommu_mode");
    return (without && (*without == 'Y' || *without == '1')) ||
           ruche_error(
               error, MANAGER_ERR_CONFIG,
               "node device '%s' has no IOMMU group: switch the IOMMU on in the firmware and "
               "by the kernel's command line (intel_iommu=on)",
               d->name);
}

struct use_work {
    char *file; /* of its group */
    pid_t pid;
};

/* Who has the group open: giving it back would wait for him. */
static void use_work(void *opaque)
{
    struct use_work *w = opaque;
    g_autoptr(GDir) processes = g_dir_open("/proc", 0, NULL);
    for (const char *p; processes && !w->pid && (p = g_dir_read_name(processes));) {
        g_autofree char *folder = g_strdup_printf("/proc/%s/fd", p);
        g_autoptr(GDir) fds = g_ascii_isdigit(*p) ? g_dir_open(folder, 0, NULL) : NULL;
        for (const char *f; fds && !w->pid && (f = g_dir_read_name(fds));) {
            g_autofree char *path = g_build_filename(folder, f, NULL),
                            *to = g_file_read_link(path, NULL);
            if (!g_strcmp0(to, w->file))
                w->pid = (pid_t)g_ascii_strtoll(p, NULL, 10);
        }
    }
}

static bool check_free(const struct node_device *d, GError **error)
{
    g_autofree char *path = g_strdup_printf("%s/iommu_group", d->path), *full = sysfs_path(path),
                    *link = g_file_read_link(full, NULL);
    g_autofree char *group = link ? g_path_get_basename(link) : NULL;
    g_autofree char *name = sysfs_read("/sys/kernel/iommu_groups/%s/name", group ? group : "-");
    struct use_work w = {.file = g_strdup_printf("/dev/vfio/%s%s",
                                                 !g_strcmp0(name, "vfio-noiommu") ? "noiommu-" : "",
                                                 group ? group : "-")};
    task_work(use_work, &w);
    g_free(w.file);
    return !w.pid || ruche_error(error, RUCHE_ERR_BUSY,
                                 "node device '%s' is used by process %d: a machine has it",
                                 d->name, (int)w.pid);
}

static bool has_module(GError **error)
{
    const char *argv[] = {"modprobe", VFIO, NULL};
    g_autoptr(GError) inner = NULL;
    if (sysfs_exists("/sys/bus/pci/drivers/" VFIO) ||
        (task_run_program(argv, NULL, OUTPUT_MAX, MODPROBE_MS, NULL, &inner) &&
         sysfs_exists("/sys/bus/pci/drivers/" VFIO)))
        return true;
    return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                       "this host's kernel has no driver '" VFIO "': its module " VFIO
                       " (CONFIG_VFIO_PCI) is missing%s%s",
                       inner ? ": " : "", inner ? inner->message : "");
}

/* ---- operations ---- */

static struct node_device *find(const struct caller *who, const char *name, const char *what,
                                GError **error)
{
    g_autofree char *sentence = g_strdup_printf("%s node device '%.255s'", what, name);
    return access_check(who, RIGHT_HOST, sentence, error) ? node_device_find(who, name, error)
                                                          : NULL;
}

static bool finish(const struct caller *who, const struct node_device *d, const char *what,
                   GError *inner, GError **error)
{
    bool ok = !inner;
    audit(who, what, d->name, inner);
    if (inner)
        ruche_error(error, inner->code, "node device '%s': %s", d->name, inner->message);
    g_clear_error(&inner);
    return ok;
}

static bool bind_to(const struct caller *who, const struct node_device *d, const char *what,
                    const char *driver, GError **error)
{
    struct bind_work w = {.path = d->path, .driver = driver};
    task_work_long(bind_work, &w);
    node_device_rescan();
    return finish(who, d, what, w.error, error);
}

static bool detach(const struct caller *who, const struct node_device *d, GError **error)
{
    g_autofree char *now = d->path ? driver_of(d->path) : NULL;
    if (!check_pci(d, "detached", error))
        return false;
    if (!g_strcmp0(now, VFIO))
        return true;
    return node_device_check_unused(d, error) && check_iommu(d, error) && has_module(error) &&
           bind_to(who, d, "detach", VFIO, error);
}

bool node_device_detach(const struct caller *who, const char *name, const char *driver,
                        GError **error)
{
    if (driver && strcmp(driver, "vfio") != 0 && strcmp(driver, VFIO) != 0)
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "node device '%.255s': driver '%.64s' is not supported; 'vfio' is", name,
                           driver);
    struct node_device *d = find(who, name, "detach", error);
    bool ok = d && detach(who, d, error);
    node_device_free(d);
    return ok;
}

bool node_device_reattach(const struct caller *who, const char *name, GError **error)
{
    struct node_device *d = find(who, name, "reattach", error);
    g_autofree char *now = d && d->path ? driver_of(d->path) : NULL;
    bool ok = d && check_pci(d, "reattached", error);
    if (ok && !g_strcmp0(now, VFIO))
        ok = check_free(d, error) && bind_to(who, d, "reattach", NULL, error);
    node_device_free(d);
    return ok;
}

static void reset_work(void *opaque)
{
    struct bind_work *w = opaque;
    g_autofree char *file = g_strdup_printf("%s/reset", w->path);
    sysfs_write(file, "1", &w->error);
}

static bool reset(const struct caller *who, const struct node_device *d, GError **error)
{
    g_autofree char *file = g_strdup_printf("%s/reset", d->path ? d->path : "");
    struct bind_work w = {.path = d->path};
    if (!check_pci(d, "reset", error))
        return false;
    if (!sysfs_exists(file))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED, "node device '%s' has no reset of its own",
                           d->name);
    if (!check_free(d, error) || !node_device_check_unused(d, error))
        return false;
    task_work_long(reset_work, &w);
    return finish(who, d, "reset", w.error, error);
}

bool node_device_reset(const struct caller *who, const char *name, GError **error)
{
    struct node_device *d = find(who, name, "reset", error);
    bool ok = d && reset(who, d, error);
    node_device_free(d);
    return ok;
}
