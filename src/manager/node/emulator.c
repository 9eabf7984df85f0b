/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The emulators of this host: found, asked once what they can do, and remembered in cache_dir by
 * path, time and size of their file, so that the next start asks nobody.
 *
 * Thread    The loop thread. Asking runs the program while the task waits; who asks for the same
 *           one meanwhile waits with it.
 * Trust     A caller may name any path. Only a program that is called like an emulator, belongs to
 *           root or to us, and that nobody else can write, is run.
 */
#include "manager/node/emulator.h"

#include "base/fd.h"
#include "base/log.h"
#include "manager/store.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#include <fcntl.h>
#include <inttypes.h>
#include <linux/kvm.h>
#include <malloc.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/utsname.h>

enum { ANSWER_MAX = 8 << 20, ANSWER_MS = 20000, CACHE_FORMAT = 1, FAILED_US = 60 * G_USEC_PER_SEC };

struct slot {
    struct emulator_full *full; /* NULL: not asked yet, or in vain */
    uint64_t failed_mtime_ns;   /* of the file that was asked in vain; 0: none */
    int64_t failed_us;          /* and when */
    GError *failure;
    bool asking;
    struct fiber_queue waiters;
};
static GHashTable *slots;   /* path to struct slot */
static GPtrArray *replaced; /* struct emulator_full that somebody may still hold */

/* QEMU's names of what it emulates; ours comes first and is no part of this. */
static const char *const qemu_targets[] = {
    "x86_64",  "i386",  "aarch64",     "arm",      "ppc64",    "ppc",        "riscv64",
    "riscv32", "s390x", "loongarch64", "mips64el", "mips64",   "mipsel",     "mips",
    "sparc64", "sparc", "alpha",       "hppa",     "m68k",     "microblaze", "microblazeel",
    "or1k",    "sh4",   "sh4eb",       "xtensa",   "xtensaeb",
};

#define CPUID_1_ECX_VMX (1u << 5)
#define CPUID_80000001_ECX_SVM (1u << 2)

/* A KVM that is itself software (no VMX, no SVM) makes guests crawl or hang: ruche-vmm's own default does not take it
 * either. Other processors than x86 have no such bit to look at. */
static bool kvm_rests_on_hardware(void)
{
#if defined(__x86_64__)
    unsigned a, b, c, d;
    return (__get_cpuid(1, &a, &b, &c, &d) && (c & CPUID_1_ECX_VMX)) || (__get_cpuid(0x80000001, &a, &b, &c, &d) && (c & CPUID_80000001_ECX_SVM));
#else
    return true;
#endif
}

bool node_kvm_usable(void)
{
    if (!kvm_rests_on_hardware())
        return false;
    autofd fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    return fd >= 0 && ioctl(fd, KVM_GET_API_VERSION, 0) == KVM_API_VERSION;
}

unsigned node_kvm_max_vcpus(void)
{
    autofd fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
    int n = fd < 0 ? 0 : ioctl(fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
    return n > 0 ? (unsigned)n : 0;
}

static uint64_t mtime_of(const struct stat *st)
{
    return (uint64_t)st->st_mtim.tv_sec * NS_PER_SEC + (uint64_t)st->st_mtim.tv_nsec;
}

/* A caller who may only look can name a program here: only what is called like an emulator is run. */
static bool is_named_like_one(const char *path)
{
    g_autofree char *name = g_path_get_basename(path);
    return !g_strcmp0(path, manager.vmm) || g_str_has_prefix(name, "ruche-vmm") ||
           g_str_has_prefix(name, "qemu-system-") || !strcmp(name, "qemu-kvm") ||
           !strcmp(name, "kvm");
}

static bool stat_emulator(const char *path, struct stat *ret, GError **error)
{
    if (path[0] != '/')
        return ruche_error(error, MANAGER_ERR_CONFIG, "emulator '%s' is not an absolute path",
                           path);
    if (!is_named_like_one(path))
        return ruche_error(error, MANAGER_ERR_CONFIG,
                           "emulator '%s' is not called ruche-vmm, qemu-system-ARCH or qemu-kvm",
                           path);
    if (stat(path, ret) < 0)
        return ruche_error_errno(error, errno, "emulator '%s'", path);
    if (!S_ISREG(ret->st_mode) || access(path, X_OK) < 0)
        return ruche_error(error, MANAGER_ERR_CONFIG, "emulator '%s' is not a program", path);
    if ((ret->st_uid != 0 && ret->st_uid != geteuid()) || (ret->st_mode & S_IWOTH))
        return ruche_error(
            error, MANAGER_ERR_CONFIG,
            "emulator '%s' is not run: it must belong to root or to the manager's user, and others "
            "must not be able to write it",
            path);
    return true;
}

static char *cache_path(const char *path)
{
    g_autofree char *sum = g_compute_checksum_for_string(G_CHECKSUM_SHA256, path, -1);
    return g_strdup_printf("%s/capabilities/%s.json", manager.cache_dir, sum);
}

static bool cache_is_of(JsonObject *o, const char *path, const struct stat *st, bool kvm)
{
    JsonNode *p = json_object_get_member(o, "path");
    g_autofree char *mtime = g_strdup_printf("%" PRIu64, mtime_of(st));
    return p && !g_strcmp0(json_node_get_string(p), path) &&
           !g_strcmp0(json_object_get_string_member_with_default(o, "mtime", ""), mtime) &&
           json_object_get_int_member_with_default(o, "size", -1) == st->st_size &&
           json_object_get_int_member_with_default(o, "format", -1) == CACHE_FORMAT &&
           json_object_get_boolean_member_with_default(o, "kvm", !kvm) == kvm;
}

static JsonObject *cache_load(const char *path, const struct stat *st, bool kvm)
{
    g_autofree char *file = cache_path(path);
    g_autofree char *text = manager.cache_dir ? store_read(file, ANSWER_MAX, NULL) : NULL;
    g_autoptr(JsonParser) parser = json_parser_new();
    if (!text || !json_parser_load_from_data(parser, text, -1, NULL))
        return NULL;
    JsonNode *root = json_parser_get_root(parser);
    if (!root || !JSON_NODE_HOLDS_OBJECT(root) ||
        !cache_is_of(json_node_get_object(root), path, st, kvm))
        return NULL;
    return json_object_ref(json_node_get_object(root));
}

/* A cache that cannot be written costs time at the next start, nothing else. */
static void cache_save(const char *path, const struct stat *st, bool kvm, JsonObject *answer)
{
    if (!manager.cache_dir)
        return;
    g_autofree char *mtime = g_strdup_printf("%" PRIu64, mtime_of(st));
    json_object_set_string_member(answer, "path", path);
    json_object_set_string_member(answer, "mtime", mtime);
    json_object_set_int_member(answer, "size", st->st_size);
    json_object_set_int_member(answer, "format", CACHE_FORMAT);
    json_object_set_boolean_member(answer, "kvm", kvm);
    g_autoptr(JsonNode) root = json_node_new(JSON_NODE_OBJECT);
    json_node_set_object(root, answer);
    g_autofree char *text = json_to_string(root, false);
    g_autofree char *file = cache_path(path);
    g_autofree char *dir = g_path_get_dirname(file);
    g_autoptr(GError) ignored = NULL;
    if (g_mkdir_with_parents(dir, 0700) == 0)
        store_write(file, text, 0600, &ignored);
}

static const char questions[] =
    "{\"execute\":\"qmp_capabilities\"}\n"
    "{\"execute\":\"query-version\"}\n"
    "{\"execute\":\"query-target\"}\n"
    "{\"execute\":\"query-machines\"}\n"
    "{\"execute\":\"query-cpu-definitions\"}\n"
    "{\"execute\":\"qom-list-types\",\"arguments\":{\"abstract\":false}}\n"
    "{\"execute\":\"quit\"}\n";
static const char kvm_question[] = "{\"execute\":\"qmp_capabilities\"}\n"
                                   "{\"execute\":\"query-cpu-definitions\"}\n"
                                   "{\"execute\":\"quit\"}\n";

static bool looks_like_ours(const char *path)
{
    g_autofree char *name = g_path_get_basename(path);
    return !g_strcmp0(path, manager.vmm) || g_str_has_prefix(name, "ruche-vmm");
}

/* QEMU judges its processor models by the accelerator that it runs with: it is asked twice where
 * KVM is there. */
static char *ask_qemu(const char *path, bool kvm, GError **error)
{
    const char *argv[] = {path,   "-M",          "none,accel=tcg",  "-S",   "-display",
                          "none", "-nodefaults", "-no-user-config", "-qmp", "stdio",
                          NULL};
    g_autofree char *lines = NULL, *more = NULL;
    if (!task_run_program(argv, questions, ANSWER_MAX, ANSWER_MS, &lines, error))
        return NULL;
    argv[2] = "none,accel=kvm";
    if (kvm && !task_run_program(argv, kvm_question, ANSWER_MAX, ANSWER_MS, &more, NULL))
        more = NULL; /* then it cannot use KVM, and its first answer stands */
    return g_strconcat(lines, "\n", more, NULL);
}

static char *ask_ours(const char *path, GError **error)
{
    const char *argv[] = {path,   "-M",          "q35,accel=soft", "-S",    "-display",
                          "none", "-nodefaults", "-qmp",           "stdio", NULL};
    char *lines = NULL;
    return task_run_program(argv, questions, ANSWER_MAX, ANSWER_MS, &lines, error) ? lines : NULL;
}

static JsonObject *ask(const char *path, bool kvm, GError **error)
{
    g_autofree char *lines =
        looks_like_ours(path) ? ask_ours(path, error) : ask_qemu(path, kvm, error);
    JsonObject *answer = lines ? emulator_answer_parse(lines, error) : NULL;
    if (!answer)
        g_prefix_error(error, "emulator '%s': ", path);
    return answer;
}

static struct emulator_full *load(const char *path, const struct stat *st, GError **error)
{
    bool kvm = node_kvm_usable();
    g_autoptr(JsonObject) answer = cache_load(path, st, kvm);
    bool fresh = !answer;
    if (fresh)
        answer = ask(path, kvm, error);
    if (!answer)
        return NULL;
    struct emulator_full *f = emulator_from_answer(path, answer, error);
    if (!f)
        return NULL;
    if (fresh)
        cache_save(path, st, kvm, answer);
    g_autofree char *host = node_arch();
    bool same_cpu =
        !strcmp(f->e.arch, host) || (!strcmp(host, "x86_64") && !strcmp(f->e.arch, "i686"));
    f->e.kvm = kvm && same_cpu;
    f->mtime_ns = mtime_of(st);
    f->size = (uint64_t)st->st_size;
    return f;
}

static struct slot *slot_of(const char *path)
{
    if (!slots) {
        slots = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
        replaced = g_ptr_array_new();
    }
    struct slot *s = g_hash_table_lookup(slots, path);
    if (!s) {
        s = g_new0(struct slot, 1);
        g_hash_table_insert(slots, g_strdup(path), s);
    }
    return s;
}

static void remember(struct slot *s, struct emulator_full *f, const struct stat *st,
                     const GError *why)
{
    g_clear_error(&s->failure);
    s->failed_mtime_ns = f ? 0 : mtime_of(st);
    s->failed_us = g_get_monotonic_time();
    if (!f) {
        s->failure = g_error_copy(why);
        log_warn("%s", why->message);
    }
    if (f && s->full)
        g_ptr_array_add(replaced, s->full);
    if (f)
        s->full = f;
}

/* A program that could not answer is not asked again at once, unless its file has changed. */
static const struct emulator_full *by_path(const char *path, GError **error)
{
    struct stat st;
    if (!stat_emulator(path, &st, error))
        return NULL;
    struct slot *s = slot_of(path);
    while (s->asking)
        fiber_queue_wait(&s->waiters);
    if (s->full && s->full->mtime_ns == mtime_of(&st) && s->full->size == (uint64_t)st.st_size)
        return s->full;
    if (s->failed_mtime_ns == mtime_of(&st) && g_get_monotonic_time() - s->failed_us < FAILED_US) {
        g_propagate_error(error, g_error_copy(s->failure));
        return NULL;
    }
    g_autoptr(GError) why = NULL;
    g_autofree char *own = g_strdup(path);
    s->asking = true;
    struct emulator_full *f = load(own, &st, &why);
    s->asking = false;
    remember(s, f, &st, why);
    fiber_queue_wake_all(&s->waiters);
    if (!f)
        g_propagate_error(error, g_steal_pointer(&why));
    return f;
}

static char *qemu_path(const char *target)
{
    g_autofree char *name = g_strdup_printf("qemu-system-%s", target);
    return g_find_program_in_path(name);
}

const struct emulator_full *emulator_full(const char *path, const char *arch, GError **error)
{
    if (path)
        return by_path(path, error);
    g_autofree char *host = node_arch();
    if (manager.vmm && !strcmp(host, "x86_64") && (!arch || !strcmp(arch, "x86_64")))
        return by_path(manager.vmm, error);
    const char *wanted = arch ? arch : host;
    const char *target = !strcmp(wanted, "i686")     ? "i386"
                         : !strcmp(wanted, "armv7l") ? "arm"
                                                     : wanted;
    for (unsigned i = 0; i < ARRAY_COUNT(qemu_targets); i++)
        if (!strcmp(qemu_targets[i], target)) {
            g_autofree char *found = qemu_path(target);
            if (found)
                return by_path(found, error);
        }
    ruche_error(error, MANAGER_ERR_CONFIG, "no emulator for architecture '%s' is installed",
                wanted);
    return NULL;
}

const struct emulator *node_emulator(const char *path, const char *arch, GError **error)
{
    const struct emulator_full *f = emulator_full(path, arch, error);
    return f ? &f->e : NULL;
}

GPtrArray *emulator_all(void)
{
    GPtrArray *all = g_ptr_array_new();
    const struct emulator_full *f = manager.vmm ? by_path(manager.vmm, NULL) : NULL;
    if (f)
        g_ptr_array_add(all, (gpointer)f);
    for (unsigned i = 0; i < ARRAY_COUNT(qemu_targets); i++) {
        g_autofree char *path = qemu_path(qemu_targets[i]);
        if (path && (f = by_path(path, NULL)))
            g_ptr_array_add(all, (gpointer)f);
    }
    return all;
}

unsigned node_max_vcpus(const char *virt_type)
{
    struct slot *s = slots && manager.vmm ? g_hash_table_lookup(slots, manager.vmm) : NULL;
    const struct emulator_machine *m = s && s->full ? emulator_machine(s->full, NULL) : NULL;
    unsigned most = m ? m->cpu_max : 64, kvm = node_kvm_max_vcpus();
    return virt_type && !strcmp(virt_type, "kvm") && kvm ? MIN(most, kvm) : most;
}

static void ask_all(void *opaque)
{
    g_ptr_array_unref(emulator_all());
    malloc_trim(0); /* reading answers takes more than all that stays */
}

void node_start(void)
{
    task_start(ask_all, NULL);
}
