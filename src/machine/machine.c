/* SPDX-License-Identifier: GPL-2.0-or-later */
/* struct machine: made from a configuration, powered on, run, stopped, reset, taken apart.
 *
 * Thread    Main; the accel_host callbacks run on vCPU threads.
 * Order     RAM, address spaces, accelerator, vCPUs, board with its devices, threads. Taken apart backwards; each
 *           step takes a machine that was only half built.
 */
#include "machine/dirty.h"
#include "machine/machine_internal.h"

#define MEMORY_LIMIT (1ULL << 52)
#define PORT_LIMIT (1ULL << 16)
#define DEFAULT_RAM (128 * MIB)
#define MAX_EVENTFDS_ALL 4096

/* --- boards --- */

static int compare_boards(const void *a, const void *b)
{
    return strcmp((*(const struct board_type *const *)a)->name, (*(const struct board_type *const *)b)->name);
}

const struct board_type *const *board_type_list(void)
{
    static const struct board_type **list;
    if (g_once_init_enter(&list)) {
        size_t count = 0;
        LINKSET_FOREACH(board_types, struct board_type, t)
            count++;
        const struct board_type **sorted = g_new0(const struct board_type *, count + 1);
        count = 0;
        LINKSET_FOREACH(board_types, struct board_type, t)
            sorted[count++] = t;
        qsort(sorted, count, sizeof(*sorted), compare_boards);
        g_once_init_leave(&list, sorted);
    }
    return list;
}

const struct board_type *board_type_find(const char *name)
{
    for (const struct board_type *const *t = board_type_list(); *t; t++)
        if (!strcmp((*t)->name, name) || ((*t)->aliases && g_strv_contains((*t)->aliases, name)))
            return *t;
    return NULL;
}

void machine_config_init(struct machine_config *c)
{
    *c = (struct machine_config){
        .ram_bytes = DEFAULT_RAM,
        .topology = { 1, 1, 1, 1 },
        .cpu_count = 1,
        .max_cpus = 1,
        .acpi = true, .smbios = true, .hpet = true, .graphics = true,
        .pit = true, .pic = true, .rtc = true, .isa_serial = true,
    };
}

/* --- what the accelerator asks of the machine --- */

static uint64_t host_mmio_read(void *opaque, struct vcpu *v, uint64_t gpa, unsigned size)
{
    return mem_io_read(((struct machine *)opaque)->memory, gpa, size);
}

static void host_mmio_write(void *opaque, struct vcpu *v, uint64_t gpa, uint64_t val, unsigned size)
{
    mem_io_write(((struct machine *)opaque)->memory, gpa, val, size);
}

static uint64_t host_io_read(void *opaque, struct vcpu *v, uint16_t port, unsigned size)
{
    return mem_io_read(((struct machine *)opaque)->io, port, size);
}

static void host_io_write(void *opaque, struct vcpu *v, uint16_t port, uint64_t val, unsigned size)
{
    mem_io_write(((struct machine *)opaque)->io, port, val, size);
}

/* RAM from 1 MiB on is never covered by anything (BARs stand behind it), so no lookup is needed. */
static struct cpu_phys host_translate(void *opaque, uint64_t gpa)
{
    struct machine *m = opaque;
    if (gpa >= MIB && gpa < m->ram_below_4g)
        return (struct cpu_phys){ m->ram + gpa, true, gpa - MIB, m->ram_below_4g - gpa - 4096 };
    uint64_t above = gpa - 4 * GIB;
    if (gpa >= 4 * GIB && above < m->ram_above_4g)
        return (struct cpu_phys){ m->ram + m->ram_below_4g + above, true, above, m->ram_above_4g - above - 4096 };
    struct cpu_phys page = { 0 };
    struct mem_range r;
    if (!mem_find(m->memory, gpa, &r))
        return page;
    uint64_t in = gpa - r.base;
    if (r.region->kind != MEM_IO && range_fits(in, 4096, r.size)) {
        page.hva = r.region->hva + r.off + in;
        page.writable = r.region->kind == MEM_RAM;
    }
    mem_unref(&r);
    return page;
}

/* --- what the machine tells the accelerator --- */

static void memory_commit(void *opaque, const struct mem_range *ranges, size_t count)
{
    struct machine *m = opaque;
    g_autofree struct accel_slot *slots = g_new(struct accel_slot, count + 1);
    size_t n = 0;
    for (size_t i = 0; i < count; i++) {
        const struct mem_region *r = ranges[i].region;
        if (r->kind == MEM_IO)
            continue;
        slots[n++] = (struct accel_slot){ .gpa = ranges[i].base, .size = ranges[i].size,
                                          .hva = r->hva + ranges[i].off, .readonly = r->kind == MEM_ROM };
    }
    m->accel->ops->set_slots(m->accel, slots, n);
}

static void set_eventfds(struct machine *m, bool io, const struct mem_range *ranges, size_t count)
{
    if (!m->accel->ops->set_eventfds)
        return;
    g_autoptr(GArray) fds = g_array_new(false, false, sizeof(struct accel_eventfd));
    for (size_t i = 0; i < count; i++) {
        const struct mem_region *r = ranges[i].region;
        for (unsigned e = 0; e < r->eventfd_count && fds->len < MAX_EVENTFDS_ALL; e++) {
            const struct mem_eventfd *f = &r->eventfds[e];
            if (f->off < ranges[i].off || f->off - ranges[i].off >= ranges[i].size)
                continue;
            struct accel_eventfd a = { .addr = ranges[i].base + (f->off - ranges[i].off), .data = f->data,
                                       .size = f->size, .io = io, .match_data = f->match_data, .fd = f->fd };
            g_array_append_val(fds, a);
        }
    }
    m->accel->ops->set_eventfds(m->accel, io, (const struct accel_eventfd *)fds->data, fds->len);
}

static void memory_eventfds(void *opaque, const struct mem_range *ranges, size_t count)
{
    set_eventfds(opaque, false, ranges, count);
}

static void memory_changed(void *opaque, const struct mem_range *ranges, size_t count)
{
    memory_commit(opaque, ranges, count);
    memory_eventfds(opaque, ranges, count);
}

static void memory_written(void *opaque, uint64_t addr, uint64_t len)
{
    struct machine *m = opaque;
    machine_dirty_written(m, addr, len);
    if (m->accel->ops->written)
        m->accel->ops->written(m->accel, addr, len);
}

static void io_eventfds(void *opaque, const struct mem_range *ranges, size_t count)
{
    set_eventfds(opaque, true, ranges, count);
}

static void kernel_gsi(void *opaque, int n, int level)
{
    struct accel *a = opaque;
    a->ops->gsi(a, (unsigned)n, level);
}

/* --- making one --- */

static bool check_cpus(const struct board_type *board, const struct machine_config *c, GError **error)
{
    const struct cpu_topology *t = &c->topology;
    uint64_t product = (uint64_t)t->sockets * t->dies * t->cores * t->threads;
    unsigned max = (unsigned)max_u64(c->cpu_count, c->max_cpus);
    if (!c->cpu_count || max > board->max_cpus)
        return ruche_error(error, RUCHE_ERR_INVALID, "-smp: %u vCPUs; machine '%s' has 1 to %u", max,
                           board->name, board->max_cpus);
    if (product < c->cpu_count)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "-smp: %u sockets of %u dies, %u cores and %u threads hold fewer than %u vCPUs",
                           t->sockets, t->dies, t->cores, t->threads, c->cpu_count);
    return true;
}

static bool make_memory(struct machine *m, GError **error)
{
    const struct board_type *b = m->board;
    uint64_t ram = m->config.ram_bytes;
    if (!machine_ram_init(m, error))
        return false;
    m->ram_below_4g = ram <= b->ram_low_max ? ram : b->ram_low_split;
    m->ram_above_4g = ram - m->ram_below_4g;
    m->memory = mem_space_new("memory", MEMORY_LIMIT);
    m->io = mem_space_new("io", PORT_LIMIT);
    int err = m->memory && m->io ? 0 : -ENOMEM;
    mem_region_init_ram(&m->ram_low, "ram-low", MEM_RAM, m->ram, m->ram_below_4g, m->ram_fd, 0);
    if (!err)
        err = mem_region_add(m->memory, &m->ram_low, 0, 0);
    if (!err && m->ram_above_4g) {
        mem_region_init_ram(&m->ram_high, "ram-high", MEM_RAM, m->ram + m->ram_below_4g, m->ram_above_4g,
                            m->ram_fd, m->ram_below_4g);
        err = mem_region_add(m->memory, &m->ram_high, 4 * GIB, 0);
    }
    return !err || ruche_error_errno(error, -err, "the address map cannot be made");
}

static bool make_accel(struct machine *m, const char *names, char **ret_note, GError **error)
{
    g_autofree char *why = NULL;
    m->cpu_model = cpu_model_parse(m->config.cpu_model ? m->config.cpu_model : "max", &why);
    if (!m->cpu_model)
        return ruche_error(error, RUCHE_ERR_INVALID, "-cpu: %s", why);
    const struct accel_ops *ops = accel_choose(names, ret_note, error);
    if (!ops)
        return false;
    m->accel_host = (struct accel_host){
        .opaque = m, .config = m->config.accel, .mmio_read = host_mmio_read, .mmio_write = host_mmio_write,
        .io_read = host_io_read, .io_write = host_io_write, .translate = host_translate,
    };
    m->accel = ops->create(&m->accel_host, m->cpu_model, &m->config.topology, m->config.ram_bytes, m->config.pit,
                           error);
    if (!m->accel)
        return false;
    m->accel->ops = ops;
    m->memory_listener = (struct mem_listener){ .commit = memory_changed, .eventfds = memory_eventfds,
                                                .written = memory_written, .opaque = m };
    m->io_listener = (struct mem_listener){ .commit = io_eventfds, .eventfds = io_eventfds, .opaque = m };
    mem_space_listen(m->memory, &m->memory_listener);
    mem_space_listen(m->io, &m->io_listener);
    for (unsigned i = 0; ops->kernel_irqchip && i < ARRAY_COUNT(m->gsi); i++)
        m->gsi[i] = (struct irq_line){ kernel_gsi, m->accel, (int)i };
    return true;
}

static bool make_vcpus(struct machine *m, GError **error)
{
    unsigned count = (unsigned)max_u64(m->config.cpu_count, m->config.max_cpus);
    m->vcpus = g_new0(struct vcpu *, count);
    for (; m->vcpu_count < count; m->vcpu_count++) {
        unsigned i = m->vcpu_count;
        m->vcpus[i] = m->accel->ops->vcpu_new(m->accel, i, error);
        if (!m->vcpus[i])
            return false;
        m->vcpus[i]->apic_id = cpu_topology_apic_id(&m->config.topology, i);
        m->vcpus[i]->present = i < m->config.cpu_count;
    }
    return true;
}

struct machine *machine_new(const struct board_type *board, const struct machine_config *config,
                            const char *accel_names, struct loop *main_loop, char **ret_accel_note,
                            GError **error)
{
    if (!check_cpus(board, config, error))
        return NULL;
    struct machine *m = g_new0(struct machine, 1);
    m->config = *config;
    m->board = board;
    m->main_loop = main_loop;
    m->ram_fd = -1;
    m->devices_tail = &m->devices;
    m->state = RUN_PRELAUNCH;
    clock_init(&m->clock);
    bool ok = machine_requests_init(m, error) && make_memory(m, error) &&
              make_accel(m, accel_names, ret_accel_note, error) && make_vcpus(m, error);
    if (ok) {
        mem_space_begin(m->memory);
        mem_space_begin(m->io);
        ok = board->build(m, error);
        mem_space_end(m->io);
        mem_space_end(m->memory);
    }
    if (ok && machine_threads_start(m, error))
        return m;
    machine_free(m);
    return NULL;
}

static void free_devices(struct machine *m)
{
    while (m->devices) {
        struct device *last = m->devices;
        while (last->next)
            last = last->next;
        device_free(last);
    }
}

void machine_free(struct machine *m)
{
    if (!m)
        return;
    machine_threads_join(m);
    if (m->accel) {
        mem_space_unlisten(m->memory, &m->memory_listener);
        mem_space_unlisten(m->io, &m->io_listener);
    }
    free_devices(m);
    if (m->board->destroy)
        m->board->destroy(m);
    machine_requests_done(m);
    for (unsigned i = 0; i < m->vcpu_count; i++)
        m->accel->ops->vcpu_free(m->vcpus[i]);
    g_free(m->vcpus);
    if (m->accel)
        m->accel->ops->destroy(m->accel);
    cpu_model_free(m->cpu_model);
    mem_space_free(m->memory);
    mem_space_free(m->io);
    machine_dirty_free(m);
    machine_ram_done(m);
    for (unsigned i = 0; i < ARRAY_COUNT(m->backends); i++)
        g_clear_pointer(&m->backends[i], g_hash_table_destroy);
    clock_done(&m->clock);
    g_free(m);
}

struct device *machine_find_device(struct machine *m, const char *id)
{
    for (struct device *d = m->devices; d; d = d->next)
        if (d->id && !strcmp(d->id, id))
            return d;
    return NULL;
}

/* --- power, reset, run, stop --- */

static bool reset_and_boot(struct machine *m, GError **error)
{
    for (struct device *d = m->devices; d; d = d->next)
        if (d->realized)
            device_reset(d);
    for (unsigned i = 0; i < m->vcpu_count; i++)
        m->accel->ops->vcpu_reset(m->vcpus[i]);
    machine_vcpus_revive(m);
    return m->board->boot(m, error);
}

bool machine_power_on(struct machine *m, GError **error)
{
    m->powered_on = true;
    return reset_and_boot(m, error);
}

bool machine_reset(struct machine *m, GError **error)
{
    bool was_running = machine_is_running(m);
    machine_threads_stop(m);
    bool ok = reset_and_boot(m, error);
    if (ok && was_running)
        machine_threads_run(m);
    return ok;
}

void machine_run(struct machine *m)
{
    if (machine_is_running(m))
        return;
    for (struct device *d = m->devices; d; d = d->next)
        device_stopped(d, false);
    if (m->accel->ops->clock_stopped)
        m->accel->ops->clock_stopped(m->accel, false);
    clock_start(&m->clock);
    m->state = RUN_RUNNING;
    machine_threads_run(m);
}

void machine_stop(struct machine *m)
{
    if (!machine_is_running(m))
        return;
    machine_threads_stop(m);
    for (struct device *d = m->devices; d; d = d->next)
        device_stopped(d, true);
    clock_stop(&m->clock);
    if (m->accel->ops->clock_stopped)
        m->accel->ops->clock_stopped(m->accel, true);
    if (m->state == RUN_RUNNING)
        m->state = RUN_PAUSED;
}
