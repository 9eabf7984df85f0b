/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Control groups; see cgroup.h. Every group of ours lies in one of the host's, "ruche.machines". */
#include "manager/cgroup.h"

#include "base/fd.h"

#include <fcntl.h>
#include <glib/gstdio.h>
#include <inttypes.h>
#include <mntent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define OWN_PARENT "ruche.machines"

struct cgroup {
    char *name;
    struct {
        char *path;   /* NULL: the controller is not here */
        bool unified; /* version 2 */
    } at[CGROUP_CONTROLLERS];
};

static const struct {
    const char *v1, *v2, *missing; /* mount option; word in cgroup.controllers */
} controllers[CGROUP_CONTROLLERS] = {
    [CGROUP_CPU] = {"cpu", "cpu", "cpu"},
    [CGROUP_CPUACCT] = {"cpuacct", "cpu", "cpuacct"},
    [CGROUP_CPUSET] = {"cpuset", "cpuset", "cpuset"},
    [CGROUP_MEMORY] = {"memory", "memory", "memory"},
    [CGROUP_BLKIO] = {"blkio", "io", "io"},
};

static const struct {
    enum cgroup_controller controller;
    const char *v1, *v2;
    int part; /* of a file with several words: which */
} keys[CGROUP_KEYS] = {
    [CGROUP_CPU_SHARES] = {CGROUP_CPU, "cpu.shares", "cpu.weight", 0},
    [CGROUP_CPU_PERIOD_US] = {CGROUP_CPU, "cpu.cfs_period_us", "cpu.max", 1},
    [CGROUP_CPU_QUOTA_US] = {CGROUP_CPU, "cpu.cfs_quota_us", "cpu.max", 0},
    [CGROUP_MEMORY_HARD] = {CGROUP_MEMORY, "memory.limit_in_bytes", "memory.max", 0},
    [CGROUP_MEMORY_SOFT] = {CGROUP_MEMORY, "memory.soft_limit_in_bytes", "memory.high", 0},
    [CGROUP_MEMORY_SWAP] = {CGROUP_MEMORY, "memory.memsw.limit_in_bytes", "memory.swap.max", 0},
    [CGROUP_BLKIO_WEIGHT] = {CGROUP_BLKIO, "blkio.weight", "io.weight", 0},
    [CGROUP_CPUSET_CPUS] = {CGROUP_CPUSET, "cpuset.cpus", "cpuset.cpus", 0},
    [CGROUP_CPUSET_MEMS] = {CGROUP_CPUSET, "cpuset.mems", "cpuset.mems", 0},
};

/* ---- files ---- */

static char *read_file(const char *dir, const char *file)
{
    g_autofree char *path = g_build_filename(dir, file, NULL);
    char *text = NULL;
    if (!g_file_get_contents(path, &text, NULL, NULL))
        return NULL;
    return g_strstrip(text);
}

/* 0 or a positive errno. */
static int write_file(const char *dir, const char *file, const char *text)
{
    g_autofree char *path = g_build_filename(dir, file, NULL);
    autofd fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    ssize_t len = (ssize_t)strlen(text), n = write(fd, text, len);
    return n == len ? 0 : n < 0 ? errno : EIO;
}

/* ---- where controllers are ---- */

static bool has_word(const char *list, const char *word, const char *separators)
{
    g_auto(GStrv) words = g_strsplit_set(list, separators, -1);
    return g_strv_contains((const char *const *)words, word);
}

/* A mount's path if it serves the controller. */
static char *serves(const struct mntent *m, enum cgroup_controller k, bool *ret_unified)
{
    if (!strcmp(m->mnt_type, "cgroup") && has_word(m->mnt_opts, controllers[k].v1, ",")) {
        *ret_unified = false;
        return g_strdup(m->mnt_dir);
    }
    if (strcmp(m->mnt_type, "cgroup2"))
        return NULL;
    g_autofree char *list = read_file(m->mnt_dir, "cgroup.controllers");
    if (!list || !has_word(list, controllers[k].v2, " "))
        return NULL;
    *ret_unified = true;
    return g_strdup(m->mnt_dir);
}

static char *find_mount(enum cgroup_controller k, bool *ret_unified)
{
    const char *table = g_getenv("CGROUP_MOUNTS");
    FILE *f = setmntent(table ? table : "/proc/self/mounts", "re");
    char *found = NULL;
    struct mntent m;
    char buf[4096];
    while (f && !found && getmntent_r(f, &m, buf, sizeof(buf)))
        found = serves(&m, k, ret_unified);
    if (f)
        endmntent(f);
    return found;
}

/* Children may use what their parent allows them. */
static void allow_children(const char *dir, enum cgroup_controller k)
{
    g_autofree char *text = g_strconcat("+", controllers[k].v2, NULL);
    write_file(dir, "cgroup.subtree_control", text);
}

/* A cpuset of version 1 begins empty, and nobody can enter it so. */
static void inherit_cpuset(const char *parent, const char *dir)
{
    static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};
    for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *own = read_file(dir, files[i]), *theirs = read_file(parent, files[i]);
        if (own && !*own && theirs)
            write_file(dir, files[i], theirs);
    }
}

static bool make_group(const char *parent, const char *dir, enum cgroup_controller k, bool unified)
{
    if (unified)
        allow_children(parent, k);
    if (mkdir(dir, 0755) < 0 && errno != EEXIST)
        return false;
    if (!unified && k == CGROUP_CPUSET)
        inherit_cpuset(parent, dir);
    return true;
}

static struct cgroup *group_at(const char *name, bool make)
{
    struct cgroup *c = g_new0(struct cgroup, 1);
    c->name = g_strdup(name);
    for (int k = 0; k < CGROUP_CONTROLLERS; k++) {
        g_autofree char *mount = find_mount(k, &c->at[k].unified);
        if (!mount)
            continue;
        g_autofree char *parent = g_build_filename(mount, OWN_PARENT, NULL),
                        *dir = g_build_filename(parent, name, NULL);
        bool there = make ? make_group(mount, parent, k, c->at[k].unified) &&
                                make_group(parent, dir, k, c->at[k].unified)
                          : g_file_test(dir, G_FILE_TEST_IS_DIR);
        if (there)
            c->at[k].path = g_steal_pointer(&dir);
    }
    return c;
}

struct cgroup *cgroup_new(const char *name)
{
    return group_at(name, true);
}

struct cgroup *cgroup_find(const char *name)
{
    return group_at(name, false);
}

void cgroup_free(struct cgroup *c)
{
    if (!c)
        return;
    for (int k = 0; k < CGROUP_CONTROLLERS; k++)
        g_free(c->at[k].path);
    g_free(c->name);
    g_free(c);
}

const char *cgroup_name(const struct cgroup *c)
{
    return c->name;
}

bool cgroup_has(const struct cgroup *c, enum cgroup_controller k)
{
    return c && c->at[k].path;
}

bool cgroup_is_unified(const struct cgroup *c, enum cgroup_controller k)
{
    return cgroup_has(c, k) && c->at[k].unified;
}

static void remove_tree(const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    for (const char *name; dir && (name = g_dir_read_name(dir));) {
        g_autofree char *child = g_build_filename(path, name, NULL);
        if (g_file_test(child, G_FILE_TEST_IS_DIR))
            g_rmdir(child);
    }
    g_rmdir(path);
}

void cgroup_remove(struct cgroup *c)
{
    for (int k = 0; k < CGROUP_CONTROLLERS; k++)
        if (c->at[k].path)
            remove_tree(c->at[k].path);
}

/* Controllers that are mounted together share a path. */
static bool seen_before(const struct cgroup *c, int k)
{
    for (int i = 0; i < k; i++)
        if (!g_strcmp0(c->at[i].path, c->at[k].path))
            return true;
    return false;
}

unsigned cgroup_open_procs(const struct cgroup *c, int *ret, unsigned room)
{
    unsigned n = 0;
    for (int k = 0; k < CGROUP_CONTROLLERS && n < room; k++) {
        if (!c->at[k].path || seen_before(c, k))
            continue;
        g_autofree char *path = g_build_filename(c->at[k].path, "cgroup.procs", NULL);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd >= 0)
            ret[n++] = fd;
    }
    return n;
}

/* ---- values ---- */

static bool missing(enum cgroup_controller k, GError **error)
{
    return ruche_error(
        error, MANAGER_ERR_CONFIG,
        "the control group controller '%s' is not mounted here, or cannot be written to",
        controllers[k].missing);
}

/* The folder of the machine, or of a part of it; NULL: not there. */
static char *folder(const struct cgroup *c, const char *part, enum cgroup_controller k)
{
    if (!cgroup_has(c, k))
        return NULL;
    return part ? g_build_filename(c->at[k].path, part, NULL) : g_strdup(c->at[k].path);
}

/* Makes a part's group and puts its threads in. */
static bool make_part(struct cgroup *c, const char *part, const pid_t *tids, unsigned tid_count,
                      enum cgroup_controller k, GError **error)
{
    g_autofree char *dir = folder(c, part, k);
    bool unified = c->at[k].unified;
    if (mkdir(dir, 0755) < 0 && errno != EEXIST)
        return ruche_error_errno(error, errno, "control group '%s'", dir);
    if (unified && write_file(dir, "cgroup.type", "threaded"))
        return ruche_error_errno(error, errno, "control group '%s' for threads", dir);
    if (unified)
        allow_children(c->at[k].path, k);
    for (unsigned i = 0; i < tid_count; i++) {
        g_autofree char *text = g_strdup_printf("%d", (int)tids[i]);
        int err = write_file(dir, unified ? "cgroup.threads" : "tasks", text);
        if (err && err != ESRCH)
            return ruche_error_errno(error, err, "thread %d cannot enter control group '%s'",
                                     (int)tids[i], dir);
    }
    return true;
}

/* Both words of cpu.max are written at once: the other one as it is. */
static char *cpu_max_text(const char *dir, int part, const char *word)
{
    g_autofree char *old = read_file(dir, "cpu.max");
    g_auto(GStrv) words = g_strsplit(old ? old : "max 100000", " ", 2);
    const char *other = g_strv_length(words) == 2 ? words[1 - part] : part ? "max" : "100000";
    return part ? g_strdup_printf("%s %s", other, word) : g_strdup_printf("%s %s", word, other);
}

static char *value_text(const char *dir, enum cgroup_key key, bool unified, int64_t value)
{
    bool memory = keys[key].controller == CGROUP_MEMORY;
    bool none = (key == CGROUP_CPU_QUOTA_US || memory) && value < 0;
    g_autofree char *word =
        none && unified ? g_strdup("max") : g_strdup_printf("%" PRId64, none ? -1 : value);
    if (unified && (key == CGROUP_CPU_PERIOD_US || key == CGROUP_CPU_QUOTA_US))
        return cpu_max_text(dir, keys[key].part, word);
    if (unified && key == CGROUP_BLKIO_WEIGHT)
        return g_strconcat("default ", word, NULL);
    return g_steal_pointer(&word);
}

/* Version 2 limits swap alone: what is above the hard limit. */
static int64_t swap_alone(const char *dir, int64_t both)
{
    g_autofree char *hard = read_file(dir, "memory.max");
    int64_t own = hard && strcmp(hard, "max") ? g_ascii_strtoll(hard, NULL, 10) : 0;
    return both < 0 ? both : MAX(both - own, 0);
}

bool cgroup_set(struct cgroup *c, const char *part, const pid_t *tids, unsigned tid_count,
                enum cgroup_key key, int64_t value, GError **error)
{
    enum cgroup_controller k = keys[key].controller;
    if (!cgroup_has(c, k))
        return missing(k, error);
    if (part && !make_part(c, part, tids, tid_count, k, error))
        return false;
    g_autofree char *dir = folder(c, part, k);
    bool unified = c->at[k].unified;
    if (unified && key == CGROUP_MEMORY_SWAP)
        value = swap_alone(dir, value);
    const char *file = unified ? keys[key].v2 : keys[key].v1;
    g_autofree char *text = value_text(dir, key, unified, value);
    int err = write_file(dir, file, text);
    return !err ||
           ruche_error_errno(error, err, "control group '%s': '%s' cannot be set to %" PRId64,
                             c->name, file, value);
}

bool cgroup_set_text(struct cgroup *c, enum cgroup_key key, const char *text, GError **error)
{
    enum cgroup_controller k = keys[key].controller;
    if (!cgroup_has(c, k))
        return missing(k, error);
    const char *file = c->at[k].unified ? keys[key].v2 : keys[key].v1;
    int err = write_file(c->at[k].path, file, text);
    return !err || ruche_error_errno(error, err, "control group '%s': '%s' cannot be set to '%s'",
                                     c->name, file, text);
}

static int64_t parse_value(const char *text, int part)
{
    g_auto(GStrv) words = g_strsplit_set(text, " \n", -1);
    const char *word = (int)g_strv_length(words) > part ? words[part] : "";
    if (!strcmp(word, "default") && words[part + 1])
        word = words[part + 1];
    return strcmp(word, "max") ? g_ascii_strtoll(word, NULL, 10) : -1;
}

bool cgroup_get(const struct cgroup *c, const char *part, enum cgroup_key key, int64_t *ret,
                GError **error)
{
    enum cgroup_controller k = keys[key].controller;
    if (!cgroup_has(c, k))
        return missing(k, error);
    g_autofree char *dir = folder(c, part, k);
    bool unified = c->at[k].unified;
    const char *file = unified ? keys[key].v2 : keys[key].v1;
    g_autofree char *text = read_file(dir, file);
    if (!text)
        return ruche_error(error, MANAGER_ERR_CONFIG, "control group '%s' has no '%s'", c->name,
                           file);
    *ret = parse_value(text, unified ? keys[key].part : 0);
    if (unified && key == CGROUP_MEMORY_SWAP && *ret >= 0) {
        g_autofree char *hard = read_file(dir, "memory.max");
        *ret += hard && strcmp(hard, "max") ? g_ascii_strtoll(hard, NULL, 10) : 0;
    }
    return true;
}

char *cgroup_get_text(const struct cgroup *c, enum cgroup_key key)
{
    enum cgroup_controller k = keys[key].controller;
    return cgroup_has(c, k)
               ? read_file(c->at[k].path, c->at[k].unified ? keys[key].v2 : keys[key].v1)
               : NULL;
}

bool cgroup_set_device(struct cgroup *c, unsigned major, unsigned minor, const char *which,
                       uint64_t value, GError **error)
{
    static const struct {
        const char *which, *v1;
    } files[] = {
        {"weight", "blkio.weight_device"},
        {"rbps", "blkio.throttle.read_bps_device"},
        {"wbps", "blkio.throttle.write_bps_device"},
        {"riops", "blkio.throttle.read_iops_device"},
        {"wiops", "blkio.throttle.write_iops_device"},
    };
    if (!cgroup_has(c, CGROUP_BLKIO))
        return missing(CGROUP_BLKIO, error);
    bool unified = c->at[CGROUP_BLKIO].unified, weight = !strcmp(which, "weight");
    const char *file = unified ? weight ? "io.weight" : "io.max" : NULL;
    for (size_t i = 0; !file && i < G_N_ELEMENTS(files); i++)
        if (!strcmp(files[i].which, which))
            file = files[i].v1;
    g_assert(file);
    g_autofree char *word =
        unified && !weight && !value ? g_strdup("max") : g_strdup_printf("%" PRIu64, value);
    g_autofree char *text = unified && !weight
                                ? g_strdup_printf("%u:%u %s=%s", major, minor, which, word)
                                : g_strdup_printf("%u:%u %s", major, minor, word);
    int err = write_file(c->at[CGROUP_BLKIO].path, file, text);
    return !err || ruche_error_errno(error, err, "control group '%s': '%s' cannot be set to '%s'",
                                     c->name, file, text);
}

/* ---- counts ---- */

/* "name value" lines. */
static uint64_t field(const char *text, const char *name)
{
    size_t len = strlen(name);
    for (const char *p = text; p && *p; p = strchr(p, '\n') ? strchr(p, '\n') + 1 : NULL)
        if (!strncmp(p, name, len) && p[len] == ' ')
            return g_ascii_strtoull(p + len + 1, NULL, 10);
    return 0;
}

bool cgroup_cpu_ns(const struct cgroup *c, uint64_t *ret_total, uint64_t *ret_user,
                   uint64_t *ret_system)
{
    if (!cgroup_has(c, CGROUP_CPUACCT))
        return false;
    const char *dir = c->at[CGROUP_CPUACCT].path;
    bool unified = c->at[CGROUP_CPUACCT].unified;
    g_autofree char *stat = read_file(dir, unified ? "cpu.stat" : "cpuacct.stat");
    g_autofree char *usage = unified ? NULL : read_file(dir, "cpuacct.usage");
    if (!stat || (!unified && !usage))
        return false;
    uint64_t tick_ns = 1000000000u / (uint64_t)sysconf(_SC_CLK_TCK);
    *ret_total = unified ? field(stat, "usage_usec") * 1000 : g_ascii_strtoull(usage, NULL, 10);
    *ret_user = unified ? field(stat, "user_usec") * 1000 : field(stat, "user") * tick_ns;
    *ret_system = unified ? field(stat, "system_usec") * 1000 : field(stat, "system") * tick_ns;
    return true;
}

bool cgroup_percpu_ns(const struct cgroup *c, unsigned cpu, uint64_t *ret, GError **error)
{
    if (!cgroup_has(c, CGROUP_CPUACCT) || c->at[CGROUP_CPUACCT].unified)
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "processor time by host CPU is counted only by the control group "
                           "controller 'cpuacct' of version 1, which is not mounted here");
    g_autofree char *text = read_file(c->at[CGROUP_CPUACCT].path, "cpuacct.usage_percpu");
    g_auto(GStrv) words = g_strsplit(text ? text : "", " ", -1);
    if (cpu >= g_strv_length(words))
        return ruche_error(error, MANAGER_ERR_ARGUMENT, "there is no host CPU %u", cpu);
    *ret = g_ascii_strtoull(words[cpu], NULL, 10);
    return true;
}
