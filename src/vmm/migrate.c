/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine goes out: the thread that sends it, and what it asks the main thread for.
 *
 * Order     connect, head, (yes), round after round while the rest is too much, stop, what the guest asked for in its
 *           last moments, state, disks given up, the last round, state and END into the stream, (yes, GO), done.
 *           The state is taken before the last round is harvested: what devices finish for it, they write to RAM.
 */
#include "base/log.h"
#include "machine/dirty.h"
#include "machine/state.h"
#include "vmm/migrate_internal.h"

#include <stdlib.h>

#define MS_NS 1000000
#define DEFAULT_BANDWIDTH (128ull << 20) /* QEMU's */
#define DEFAULT_DOWNTIME_MS 300

const char *const migrate_status_names[N_MIGRATE_STATUS] = {
    [MIGRATE_NONE] = "none",           [MIGRATE_SETUP] = "setup",
    [MIGRATE_CANCELLING] = "cancelling", [MIGRATE_CANCELLED] = "cancelled",
    [MIGRATE_ACTIVE] = "active",       [MIGRATE_COMPLETED] = "completed",
    [MIGRATE_FAILED] = "failed",       [MIGRATE_PRE_SWITCHOVER] = "pre-switchover",
    [MIGRATE_DEVICE] = "device",
};

/* ---- what the machine is ---- */

static void describe_cpu(const struct machine *m, struct migrate_head *h)
{
    static const struct { uint32_t leaf, sub; } leaves[] = { { 0, 0 }, { 1, 0 }, { 7, 0 }, { 0xd, 0 }, { 0xd, 1 },
                                                             { 0x80000001, 0 }, { 0x80000008, 0 } };
    for (size_t i = 0; i < ARRAY_COUNT(leaves); i++) {
        uint32_t r[4];
        cpu_model_cpuid(m->cpu_model, &m->config.topology, 0, leaves[i].leaf, leaves[i].sub, r);
        g_autofree char *name = g_strdup_printf("CPUID 0x%x.%u", leaves[i].leaf, leaves[i].sub);
        migrate_head_add(h, name, "%08x %08x %08x %08x", r[0], r[1], r[2], r[3]);
    }
}

/* Among those of its type that have no id. */
static unsigned number_of(const struct machine *m, const struct device *of)
{
    unsigned n = 1;
    for (const struct device *d = m->devices; d != of; d = d->next)
        n += !d->id && d->type == of->type;
    return n;
}

void migrate_describe(struct vmm *v, struct migrate_head *ret)
{
    const struct machine *m = v->machine;
    const struct cpu_topology *t = &m->config.topology;
    migrate_head_init(ret);
    migrate_head_add(ret, "board", "%s", m->board->name);
    migrate_head_add(ret, "accelerator", "%s", m->accel->ops->name);
    migrate_head_add(ret, "bytes of RAM", "%" G_GUINT64_FORMAT, m->config.ram_bytes);
    migrate_head_add(ret, "bytes of RAM below 4 GiB", "%" G_GUINT64_FORMAT, m->ram_below_4g);
    migrate_head_add(ret, "vCPUs", "%u", m->vcpu_count);
    migrate_head_add(ret, "topology", "%u sockets, %u dies, %u cores, %u threads", t->sockets, t->dies, t->cores,
                     t->threads);
    describe_cpu(m, ret);
    for (const struct device *d = m->devices; d; d = d->next) {
        g_autofree char *name = d->id ? g_strdup_printf("device '%s' of type", d->id)
                                      : g_strdup_printf("device number %u of type %s,", number_of(m, d), d->type->name);
        migrate_head_add(ret, name, "%s", d->type->name);
    }
}

void migrate_ram_of(struct vmm *v, struct migrate_ram *ret)
{
    const struct machine *m = v->machine;
    *ret = (struct migrate_ram){ .low = m->ram, .low_pages = m->ram_below_4g / MIGRATE_PAGE,
                                 .high = m->ram + m->ram_below_4g, .high_first = 4 * GIB / MIGRATE_PAGE,
                                 .high_pages = m->ram_above_4g / MIGRATE_PAGE };
}

/* ---- status ---- */

void migrate_event(struct vmm *v, enum migrate_status status)
{
    if (!v->migrate->capabilities.events)
        return;
    JsonObject *data = json_object_new();
    json_object_set_string_member(data, "status", migrate_status_names[status]);
    qmp_event(v->qmp, "MIGRATION", data);
}

static struct migration *of(struct migrate_worker *w)
{
    return container_of(w, struct migration, worker);
}

static void set_status(struct migration *g, enum migrate_status status)
{
    pthread_mutex_lock(&g->worker.lock);
    bool changes = g->stats.status != status &&
                   !(g->cancelled && (status == MIGRATE_ACTIVE || status == MIGRATE_PRE_SWITCHOVER || status == MIGRATE_DEVICE));
    if (changes)
        g->stats.status = status;
    pthread_mutex_unlock(&g->worker.lock);
    if (changes)
        migrate_event(g->vmm, status);
}

static bool under_way(const struct migration *g)
{
    return g && g->worker.started;
}

/* ---- what the thread asks for, on the main thread ---- */

static void tell_pass(struct migration *g, uint64_t round)
{
    if (!g->capabilities.events)
        return;
    JsonObject *data = json_object_new();
    json_object_set_int_member(data, "pass", (gint64)round);
    qmp_event(g->vmm->qmp, "MIGRATION_PASS", data);
}

static bool begin(struct migrate_worker *w, GError **error)
{
    struct migration *g = of(w);
    if (!machine_dirty_start(g->machine, error))
        return false;
    g->logging = true;
    pthread_mutex_lock(&g->worker.lock);
    g->stats.setup_ms = (uint64_t)(loop_now_ns() - g->begun_ns) / MS_NS;
    g->stats.rounds = 1;
    pthread_mutex_unlock(&g->worker.lock);
    set_status(g, MIGRATE_ACTIVE);
    tell_pass(g, 1);
    return true;
}

static void count_harvest(struct migration *g, uint64_t pages)
{
    double seconds = (double)MAX(loop_now_ns() - g->round_ns, MS_NS) / 1e9;
    g->todo_pages += pages;
    pthread_mutex_lock(&g->worker.lock);
    uint64_t round = ++g->stats.rounds;
    g->stats.dirty_rate_pages = (uint64_t)((double)pages / seconds);
    pthread_mutex_unlock(&g->worker.lock);
    tell_pass(g, round);
}

static bool harvest(struct migrate_worker *w, GError **error)
{
    struct migration *g = of(w);
    count_harvest(g, machine_dirty_harvest(g->machine, g->todo));
    return true;
}

/* A machine that does not run any more gets no further rounds. */
static bool stop(struct migrate_worker *w, GError **error)
{
    struct migration *g = of(w);
    g->stopped_ns = loop_now_ns();
    g->stopped = run_finish_migrate(g->vmm, &g->before, error);
    if (!g->stopped)
        return false;
    if (g->capabilities.pause_before_switchover)
        set_status(g, MIGRATE_PRE_SWITCHOVER);
    return true;
}

/* Between stop() and here the main loop has answered what the guest had asked for. */
static bool save(struct migrate_worker *w, GError **error)
{
    struct migration *g = of(w);
    struct vmm *v = g->vmm;
    if (g->capabilities.pause_before_switchover)
        set_status(g, MIGRATE_DEVICE);
    g->run_state = run_state_name(v->machine->state == RUN_FINISH_MIGRATE ? g->before : v->machine->state);
    g->state = machine_state_save(v->machine, error);
    if (!g->state || !migrate_disks_give(v, error))
        return false;
    return harvest(w, error);
}

/* The last moment to turn back. */
static bool commit(struct migrate_worker *w, GError **error)
{
    struct migration *g = of(w);
    pthread_mutex_lock(&g->worker.lock);
    g->committed = !g->cancelled;
    pthread_mutex_unlock(&g->worker.lock);
    return g->committed || ruche_error(error, RUCHE_ERR_STATE, "cancelled");
}

/* ---- the thread ---- */

static bool wait_for_continue(struct migration *g, GError **error)
{
    if (!g->capabilities.pause_before_switchover)
        return true;
    pthread_mutex_lock(&g->worker.lock);
    while (!g->may_continue && !g->cancelled && !g->worker.abandoned)
        pthread_cond_wait(&g->worker.changed, &g->worker.lock);
    bool go = g->may_continue && !g->cancelled;
    pthread_mutex_unlock(&g->worker.lock);
    return go || ruche_error(error, RUCHE_ERR_STATE, "cancelled");
}

static bool send_running(struct migration *g, GError **error)
{
    struct migrate_worker *w = &g->worker;
    if (!migrate_channel_connect(&g->channel, error))
        return false;
    g->head.answers = g->channel.scheme == MIGRATE_TO_UNIX || g->channel.scheme == MIGRATE_TO_TCP ||
                      (g->channel.socket && g->capabilities.return_path);
    if (!migrate_write_head(&g->writer, &g->head, error) ||
        (g->head.answers && !migrate_read_answer(&g->answers, error)) || !migrate_worker_ask(w, begin, error))
        return false;
    g->live = true;
    migrate_ram_begin(g);
    do {
        if (!migrate_ram_round(g, error) || !migrate_worker_ask(w, harvest, error))
            return false;
    } while (!migrate_ram_fits(g));
    return true;
}

static bool send_stopped(struct migration *g, GError **error)
{
    struct migrate_worker *w = &g->worker;
    if (!migrate_worker_ask(w, stop, error) || !wait_for_continue(g, error))
        return false;
    g->live = false;
    if (!migrate_worker_ask(w, save, error) || !migrate_ram_round(g, error) ||
        !migrate_write_state(&g->writer, g->state->data, g->state->len, error))
        return false;
    return (g->head.answers || migrate_worker_ask(w, commit, error)) &&
           migrate_write_end(&g->writer, g->run_state, error);
}

/* Without answers END lets the other side run; with them GO does, which comes only when it says that it can. */
static bool hand_over(struct migration *g, GError **error)
{
    struct migrate_worker *w = &g->worker;
    if (!g->head.answers)
        return migrate_channel_finish(&g->channel, error);
    return migrate_read_answer(&g->answers, error) && migrate_worker_ask(w, commit, error) &&
           migrate_write_go(&g->writer, error);
}

static void run(struct migrate_worker *w)
{
    struct migration *g = of(w);
    bool ok = send_running(g, &g->error) && send_stopped(g, &g->error) && hand_over(g, &g->error);
    if (!ok && g->state && g->head.answers)
        migrate_channel_hang_up(&g->channel); /* it may have taken the disks already */
}

/* ---- the end ---- */

static void free_buffers(struct migration *g)
{
    migrate_channel_done(&g->channel);
    migrate_writer_done(&g->writer);
    migrate_reader_done(&g->answers);
    migrate_head_done(&g->head);
    g_clear_pointer(&g->state, g_byte_array_unref);
    g_clear_pointer(&g->todo, free);
}

static void go_back(struct migration *g)
{
    g_autoptr(GError) why = NULL;
    if (!migrate_disks_take(g->vmm, &why) || !run_unmigrate(g->vmm, g->before, &why))
        log_error("the machine stays stopped after its migration failed: %s", why->message);
}

static void ended(struct migrate_worker *w)
{
    struct migration *g = of(w);
    bool ok = !g->error, cancelled = g->cancelled && !ok;
    int64_t now = loop_now_ns();
    if (g->logging)
        machine_dirty_stop(g->machine);
    free_buffers(g);
    if (g->stopped && ok)
        run_migrated(g->vmm);
    else if (g->stopped)
        go_back(g);
    pthread_mutex_lock(&g->worker.lock);
    g->stats.total_ms = (uint64_t)(now - g->begun_ns) / MS_NS;
    g->stats.downtime_ms = g->stopped ? (uint64_t)(now - g->stopped_ns) / MS_NS : 0;
    g->stats.mbps = (double)g->stats.transferred_bytes * 8e3 / (double)MAX(now - g->begun_ns, 1);
    if (ok)
        g->stats.remaining_bytes = 0;
    else if (!cancelled)
        g->stats.error = g_strdup(g->error->message);
    pthread_mutex_unlock(&g->worker.lock);
    if (!ok && !cancelled)
        log_warn("the migration failed: %s", g->error->message);
    set_status(g, ok ? MIGRATE_COMPLETED : cancelled ? MIGRATE_CANCELLED : MIGRATE_FAILED);
}

static void migration_free(struct migration *g)
{
    if (!g)
        return;
    migrate_worker_join(&g->worker);
    free_buffers(g);
    g_clear_error(&g->error);
    g_free(g->stats.error);
    g_free(g);
}

/* ---- for QMP ---- */

static bool prepare(struct migration *g, const char *uri, GError **error)
{
    struct vmm *v = g->vmm;
    g->todo_words = (machine_dirty_pages(g->machine) + 63) / 64;
    g->todo = calloc(g->todo_words, sizeof(uint64_t));
    migrate_ram_of(v, &g->ram);
    migrate_describe(v, &g->head);
    g->stats.total_bytes = g->machine->config.ram_bytes;
    if (!migrate_writer_init(&g->writer, migrate_channel_write, &g->channel) ||
        !migrate_reader_init(&g->answers, migrate_channel_read, &g->channel) || !g->todo)
        return ruche_error(error, RUCHE_ERR_NO_SPACE, "no memory for a migration");
    return migrate_channel_open(&g->channel, v, uri, true, error);
}

bool migrate_start(struct vmm *v, const char *uri, GError **error)
{
    struct migrate *all = v->migrate;
    if (under_way(all->out))
        return ruche_error(error, RUCHE_ERR_BUSY, "There's a migration process in progress");
    if (v->machine->state == RUN_INMIGRATE)
        return ruche_error(error, RUCHE_ERR_STATE, "Guest is waiting for an incoming migration");
    g_clear_pointer(&all->out, migration_free);
    struct migration *g = g_new0(struct migration, 1);
    g->vmm = v;
    g->machine = v->machine;
    g->parameters = all->parameters;
    g->capabilities = all->capabilities;
    g->begun_ns = loop_now_ns();
    g->channel = (struct migrate_channel){ .fd = -1, .listen_fd = -1, .cancel_fd = -1 };
    g->stats.status = MIGRATE_SETUP;
    migrate_event(v, MIGRATE_SETUP);
    if (prepare(g, uri, error) && migrate_worker_start(&g->worker, v->loop, run, ended, error)) {
        all->out = g;
        return true;
    }
    migrate_event(v, MIGRATE_FAILED);
    migration_free(g);
    return false;
}

void migrate_cancel(struct vmm *v)
{
    struct migration *g = v->migrate->out;
    if (!under_way(g))
        return;
    pthread_mutex_lock(&g->worker.lock);
    bool first = !g->cancelled && !g->committed;
    if (first) {
        g->cancelled = true;
        g->stats.status = MIGRATE_CANCELLING;
        pthread_cond_broadcast(&g->worker.changed);
    }
    pthread_mutex_unlock(&g->worker.lock);
    if (!first)
        return;
    migrate_channel_cancel(&g->channel);
    migrate_event(v, MIGRATE_CANCELLING);
}

bool migrate_continue(struct vmm *v, GError **error)
{
    struct migration *g = v->migrate->out;
    if (!g || !under_way(g) || g->stats.status != MIGRATE_PRE_SWITCHOVER)
        return ruche_error(error, RUCHE_ERR_STATE, "Migration not in expected state: %s",
                           migrate_status_names[g ? g->stats.status : MIGRATE_NONE]);
    pthread_mutex_lock(&g->worker.lock);
    g->may_continue = true;
    pthread_cond_broadcast(&g->worker.changed);
    pthread_mutex_unlock(&g->worker.lock);
    return true;
}

bool migrate_is_under_way(struct vmm *v)
{
    return under_way(v->migrate->out);
}

void migrate_apply_parameters(struct vmm *v)
{
    struct migration *g = v->migrate->out;
    if (!under_way(g))
        return;
    pthread_mutex_lock(&g->worker.lock);
    g->parameters = v->migrate->parameters;
    pthread_mutex_unlock(&g->worker.lock);
}

bool migrate_get_stats(struct vmm *v, struct migrate_stats *ret)
{
    struct migration *g = v->migrate->out;
    *ret = (struct migrate_stats){ .status = migrate_incoming_status(v->migrate->in) };
    if (!g)
        return v->migrate->in;
    if (!g->worker.main) {
        *ret = g->stats;
        return true;
    }
    pthread_mutex_lock(&g->worker.lock);
    *ret = g->stats;
    int64_t now = loop_now_ns();
    if (g->worker.started) {
        ret->total_ms = (uint64_t)(now - g->begun_ns) / MS_NS;
        ret->downtime_ms = g->stopped ? (uint64_t)(now - g->stopped_ns) / MS_NS : 0;
    }
    pthread_mutex_unlock(&g->worker.lock);
    return true;
}

void migrate_init(struct vmm *v)
{
    v->migrate = g_new0(struct migrate, 1);
    v->migrate->parameters = (struct migrate_parameters){ .max_bandwidth_bytes = DEFAULT_BANDWIDTH,
                                                          .downtime_limit_ms = DEFAULT_DOWNTIME_MS };
}

void migrate_done(struct vmm *v)
{
    struct migrate *all = v->migrate;
    if (!all)
        return;
    if (under_way(all->out))
        migrate_channel_cancel(&all->out->channel);
    g_clear_pointer(&all->out, migration_free);
    migrate_incoming_done(v);
    migrate_disks_forget(v);
    g_clear_pointer(&v->migrate, g_free);
}
