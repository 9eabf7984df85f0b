/* SPDX-License-Identifier: GPL-2.0-or-later */
/* -object: I/O threads, memory backends, sources of randomness, secrets, limits, who may connect. */
#include "vmm/block.h"

#include "image/authz.h"
#include "image/nbd/tls.h"
#include "image/secret.h"

#include "base/log.h"
#include "base/units.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

const struct iothread_prop iothread_props[IOTHREAD_PROPS] = {
    { "poll-max-ns", 32768, INT64_MAX, true }, { "poll-grow", 0, INT64_MAX, true },
    { "poll-shrink", 0, INT64_MAX, true },     { "aio-max-batch", 0, INT64_MAX, true },
    { "thread-pool-min", 0, INT32_MAX, false }, { "thread-pool-max", 64, INT32_MAX, false },
};

static void note_thread(void *opaque)
{
    ((struct vm_iothread *)opaque)->thread_id = gettid();
}

static bool create_iothread(struct vmm *v, struct kv_list *l, GError **error)
{
    struct vm_iothread *t = g_new0(struct vm_iothread, 1);
    t->id = g_strdup(kv_get(l, "id"));
    g_ptr_array_add(v->iothreads, t);
    for (unsigned i = 0; i < IOTHREAD_PROPS; i++) {
        t->props[i] = iothread_props[i].otherwise;
        if (!kv_get_u64(l, iothread_props[i].name, 0, iothread_props[i].max, &t->props[i], error))
            return false;
    }
    t->loop = loop_new(t->id);
    int err = t->loop ? loop_thread_start(t->loop) : -errno;
    if (!err)
        loop_call(t->loop, note_thread, t);
    t->images = err ? NULL : context_get(t->loop);
    if (!err && !t->images)
        err = -ENOMEM;
    return !err || ruche_error_errno(error, -err, "I/O thread '%s'", t->id);
}

/* RAM is one memfd of our own: a backend only says how it is made. */
static bool create_memory(struct vmm *v, struct kv_list *l, GError **error)
{
    const char *id = kv_get(l, "id"), *path = kv_get(l, "mem-path");
    const char *used = v->options.machine ? kv_get(v->options.machine, "memory-backend") : NULL;
    bool share = false, prealloc = false, huge = false;
    uint64_t size = 0, huge_size = 0;
    if (!kv_get_size(l, "size", 1, &size, error) || !kv_get_bool(l, "share", &share, error) ||
        !kv_get_bool(l, "prealloc", &prealloc, error) || !kv_get_bool(l, "hugetlb", &huge, error) ||
        !kv_get_size(l, "hugetlbsize", 1, &huge_size, error))
        return false;
    if (!size)
        return ruche_error(error, RUCHE_ERR_INVALID, "'size' is missing");
    if (!used || strcmp(used, id)) {
        log_warn("-object: memory backend '%s' is not used: -machine memory-backend=%s uses it", id,
                 id);
        return true;
    }
    if (size != v->config.ram_bytes)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "its size, %" G_GUINT64_FORMAT
                           " bytes, is not that of -m, %" G_GUINT64_FORMAT " bytes",
                           size, v->config.ram_bytes);
    if (path && strncmp(path, "/dev/hugepages", 14) && strncmp(path, "/dev/shm", 8))
        return ruche_error(error, RUCHE_ERR_UNSUPPORTED,
                           "'mem-path' can be /dev/hugepages or /dev/shm here, not '%s'", path);
    v->config.ram_hugepages = huge || (path && !strncmp(path, "/dev/hugepages", 14));
    v->config.ram_prealloc = prealloc;
    v->config.ram_shared = share;
    return true;
}

/* The host kernel's generator is the source whatever file is named; a file that is not there is an
 * error all the same. */
static bool create_rng_random(struct vmm *v, struct kv_list *l, GError **error)
{
    const char *file = kv_get(l, "filename");
    if (!file)
        file = "/dev/urandom";
    if (access(file, R_OK) < 0)
        return ruche_error_errno(error, errno, "'%s'", file);
    return true;
}

static bool create_rng_builtin(struct vmm *v, struct kv_list *l, GError **error)
{
    return true;
}

/* The properties as members of a JSON object: "limits.bps-total" is bps-total of limits. */
static JsonObject *props_of(struct kv_list *l)
{
    JsonObject *o = json_object_new();
    for (size_t i = 0; i < l->count; i++)
        if (strcmp(l->pairs[i].key, "qom-type") && strcmp(l->pairs[i].key, "id"))
            json_object_set_string_member(o, l->pairs[i].key, l->pairs[i].value);
    return o;
}

static bool create_secret(struct vmm *v, struct kv_list *l, GError **error)
{
    g_autoptr(JsonObject) props = props_of(l);
    return secret_add(kv_get(l, "id"), props, error);
}

static bool create_authz(struct vmm *v, struct kv_list *l, GError **error)
{
    g_autoptr(JsonObject) props = props_of(l);
    return authz_add(kv_get(l, "qom-type"), kv_get(l, "id"), props, error);
}

static bool create_tls_creds(struct vmm *v, struct kv_list *l, GError **error)
{
    g_autoptr(JsonObject) props = props_of(l);
    struct tls_creds *c = tls_creds_new(kv_get(l, "qom-type"), kv_get(l, "id"), props, error);
    bool ok = c && tls_creds_add(c, error);
    tls_creds_unref(c);
    return ok;
}

/* "limits.bps-total" in JSON, "x-bps-total" on command lines. */
static bool group_limit(struct kv_list *l, const char *name, uint64_t *ret, GError **error)
{
    g_autofree char *dotted = g_strdup_printf("limits.%s", name), *plain = g_strdup_printf("x-%s", name);
    return kv_get_u64(l, dotted, 0, THROTTLE_VALUE_MAX, ret, error) &&
           kv_get_u64(l, plain, 0, THROTTLE_VALUE_MAX, ret, error);
}

static bool create_throttle_group(struct vmm *v, struct kv_list *l, GError **error)
{
    struct throttle_limits limits = { 0 };
    for (const struct throttle_name *t = throttle_names; t->qmp; t++) {
        g_autofree char *max = g_strdup_printf("%s-max", t->option),
                        *length = g_strdup_printf("%s-max-length", t->option);
        limits.of[t->kind].length = 1;
        if (!group_limit(l, t->option, &limits.of[t->kind].avg, error) ||
            !group_limit(l, max, &limits.of[t->kind].max, error) ||
            !group_limit(l, length, &limits.of[t->kind].length, error))
            return false;
    }
    if (!group_limit(l, "iops-size", &limits.op_size, error) || !throttle_check(&limits, error))
        return false;
    struct throttle_group *g = throttle_group_get(kv_get(l, "id"));
    throttle_group_set(g, &limits);
    g_ptr_array_add(v->throttle_groups, g);
    return true;
}

static const char *const iothread_names[] = { "qom-type",
                                              "id",
                                              "poll-max-ns",
                                              "poll-grow",
                                              "poll-shrink",
                                              "aio-max-batch",
                                              "thread-pool-min",
                                              "thread-pool-max",
                                              NULL };
static const char *const memory_props[] = { "qom-type",     "id",          "size",
                                            "share",        "prealloc",    "prealloc-threads",
                                            "hugetlb",      "hugetlbsize", "seal",
                                            "merge",        "dump",        "mem-path",
                                            "discard-data", "reserve",     NULL };
static const char *const rng_props[] = { "qom-type", "id", "filename", NULL };
static const char *const id_props[] = { "qom-type", "id", NULL };
#define LIMIT_PROPS(p, name) p name, p name "-max", p name "-max-length"
#define ALL_LIMIT_PROPS(p)                                                                         \
    LIMIT_PROPS(p, "bps-total"), LIMIT_PROPS(p, "bps-read"), LIMIT_PROPS(p, "bps-write"),          \
        LIMIT_PROPS(p, "iops-total"), LIMIT_PROPS(p, "iops-read"), LIMIT_PROPS(p, "iops-write"),   \
        p "iops-size"
static const char *const throttle_props[] = { "qom-type", "id", ALL_LIMIT_PROPS("x-"), ALL_LIMIT_PROPS("limits."),
                                              NULL };

const struct object_type object_types[] = {
    { "iothread", "A thread for devices' I/O, named by a device's iothread=", iothread_names,
      create_iothread },
    { "memory-backend-memfd", "How RAM is made: size, share, prealloc, hugetlb", memory_props,
      create_memory },
    { "memory-backend-ram", "The same", memory_props, create_memory },
    { "memory-backend-file", "The same; mem-path=/dev/hugepages asks for huge pages", memory_props,
      create_memory },
    { "rng-random", "Randomness from a file: filename=/dev/urandom", rng_props, create_rng_random },
    { "rng-builtin", "Randomness from the system", id_props, create_rng_builtin },
    { "throttle-group", "Limits that disks share: limits.bps-total=, x-iops-total=...", throttle_props,
      create_throttle_group },
    { "secret", "A password or key: data= or file=", NULL, create_secret },
    { "tls-creds-x509", "Certificates for TLS: dir=, endpoint=", NULL, create_tls_creds },
    { "tls-creds-psk", "Keys for TLS: dir=, endpoint=", NULL, create_tls_creds },
    { "authz-simple", "Lets one client in: identity=", NULL, create_authz },
    { "authz-list", "Lets clients in by rules: policy=, rules.0.match=, rules.0.policy=, rules.0.format=", NULL,
      create_authz },
    { "authz-list-file", "The same in a file: filename=, refresh=", NULL, create_authz },
    { "authz-listfile", "The same", NULL, create_authz },
    { "tls-creds-anon", "TLS without identities: endpoint=", NULL, create_tls_creds },
    { 0 },
};

bool build_object(struct vmm *v, struct kv_list *l, GError **error)
{
    const char *type = kv_get(l, "qom-type"), *names[24];
    size_t n = 0;
    for (const struct object_type *t = object_types; t->name; t++) {
        names[n++] = t->name;
        if (!strcmp(t->name, type))
            return (!t->props || kv_check_known(l, t->props, error)) && t->create(v, l, error);
    }
    names[n] = NULL;
    return ruche_error(error, RUCHE_ERR_UNKNOWN, "unknown type '%s'%s", type,
                       suggest_phrase(type, names));
}

static bool check_unique(GPtrArray *list, guint at, GError **error)
{
    const char *id = kv_get(g_ptr_array_index(list, at), "id");
    for (guint i = 0; i < at; i++)
        if (!strcmp(kv_get(g_ptr_array_index(list, i), "id"), id))
            return ruche_error(error, RUCHE_ERR_EXISTS, "the id '%s' is taken", id);
    return true;
}

static bool check_memory_backend(struct vmm *v, GError **error)
{
    struct kv_list *m = v->options.machine;
    const char *id = m ? kv_get(m, "memory-backend") : NULL;
    for (guint i = 0; id && i < v->options.objects->len; i++)
        if (!strcmp(kv_get(g_ptr_array_index(v->options.objects, i), "id"), id))
            return true;
    return !id ||
           ruche_error(error, RUCHE_ERR_NOT_FOUND, "-machine: there is no memory backend '%s'", id);
}

bool build_objects(struct vmm *v, GError **error)
{
    GPtrArray *list = v->options.objects;
    for (guint i = 0; i < list->len; i++)
        if (!check_unique(list, i, error) || !build_object(v, g_ptr_array_index(list, i), error)) {
            g_prefix_error(error, "-object: ");
            return false;
        }
    return check_memory_backend(v, error);
}
