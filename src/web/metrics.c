/* SPDX-License-Identifier: GPL-2.0-or-later */
/* GET /metrics. A figure is one row: which statistic, under which name.
 *
 * Spec      Prometheus' text format 0.0.4. Thread: the loop thread, in a task.
 */
#include "web/metrics.h"

#include "base/util.h"

#include <inttypes.h>
#include "manager/awake.h"
#include "manager/domain/domain.h"
#include "manager/node/node.h"
#include "manager/storage/pool.h"

#include <string.h>

struct metric {
    const char *stat; /* the row of domain_stats(); with an index: what is before and behind it */
    const char *tail;
    const char *name, *type, *help;
    const char *label; /* of the index: the row that has its text */
    double scale;
};

static const struct metric metrics[] = {
    { "cpu.time", NULL, "libvirt_domain_info_cpu_time_seconds_total", "counter", "CPU time of the machine", NULL, 1e-9 },
    { "balloon.current", NULL, "libvirt_domain_info_memory_usage_bytes", "gauge", "memory the guest has now", NULL, 1024 },
    { "balloon.maximum", NULL, "libvirt_domain_info_maximum_memory_bytes", "gauge", "memory the guest may have", NULL, 1024 },
    { "balloon.rss", NULL, "libvirt_domain_memory_stats_rss_bytes", "gauge", "resident memory of the process", NULL, 1024 },
    { "vcpu.current", NULL, "libvirt_domain_info_virtual_cpus", "gauge", "vCPUs", NULL, 1 },
    { "block.", "rd.reqs", "libvirt_domain_block_stats_read_requests_total", "counter", "read requests", "target_device", 1 },
    { "block.", "rd.bytes", "libvirt_domain_block_stats_read_bytes_total", "counter", "bytes read", "target_device", 1 },
    { "block.", "rd.times", "libvirt_domain_block_stats_read_time_seconds_total", "counter", "time in reads", "target_device", 1e-9 },
    { "block.", "wr.reqs", "libvirt_domain_block_stats_write_requests_total", "counter", "write requests", "target_device", 1 },
    { "block.", "wr.bytes", "libvirt_domain_block_stats_write_bytes_total", "counter", "bytes written", "target_device", 1 },
    { "block.", "wr.times", "libvirt_domain_block_stats_write_time_seconds_total", "counter", "time in writes", "target_device", 1e-9 },
    { "block.", "fl.reqs", "libvirt_domain_block_stats_flush_requests_total", "counter", "flushes", "target_device", 1 },
    { "block.", "allocation", "libvirt_domain_block_stats_allocation", "gauge", "bytes in use", "target_device", 1 },
    { "block.", "capacity", "libvirt_domain_block_stats_capacity_bytes", "gauge", "size of the disk", "target_device", 1 },
    { "net.", "rx.bytes", "libvirt_domain_interface_stats_receive_bytes_total", "counter", "bytes received", "target_device", 1 },
    { "net.", "rx.pkts", "libvirt_domain_interface_stats_receive_packets_total", "counter", "frames received", "target_device", 1 },
    { "net.", "rx.drop", "libvirt_domain_interface_stats_receive_drops_total", "counter", "frames not received", "target_device", 1 },
    { "net.", "tx.bytes", "libvirt_domain_interface_stats_transmit_bytes_total", "counter", "bytes sent", "target_device", 1 },
    { "net.", "tx.pkts", "libvirt_domain_interface_stats_transmit_packets_total", "counter", "frames sent", "target_device", 1 },
    { "net.", "tx.drop", "libvirt_domain_interface_stats_transmit_drops_total", "counter", "frames not sent", "target_device", 1 },
};

struct sample {
    char *name;
    int state;
    struct param_list stats;
};

static void sample_free(gpointer opaque)
{
    struct sample *s = opaque;
    g_free(s->name);
    param_list_done(&s->stats);
    g_free(s);
}

static double value_of(const struct param *p)
{
    switch (p->type) {
    case PARAM_INT:
    case PARAM_LLONG:
        return (double)p->i;
    case PARAM_DOUBLE:
        return p->d;
    case PARAM_STRING:
        return 0;
    default:
        return (double)p->u;
    }
}

/* A label's text: backslash, quote and line feed are escaped. */
static void put_label(GString *out, const char *label, const char *text)
{
    g_string_append_printf(out, "%s=\"", label);
    for (; *text; text++) {
        if (*text == '\\' || *text == '"')
            g_string_append_c(out, '\\');
        if (*text == '\n')
            g_string_append(out, "\\n");
        else
            g_string_append_c(out, *text);
    }
    g_string_append_c(out, '"');
}

static void put_value(GString *out, const struct metric *m, const char *domain, const char *device, const struct param *p)
{
    char number[G_ASCII_DTOSTR_BUF_SIZE];
    g_string_append_printf(out, "%s{", m->name);
    put_label(out, "domain", domain);
    if (device) {
        g_string_append_c(out, ',');
        put_label(out, m->label, device);
    }
    g_string_append_printf(out, "} %s\n", g_ascii_dtostr(number, sizeof(number), value_of(p) * m->scale));
}

static void put_indexed(GString *out, const struct metric *m, const struct sample *s)
{
    g_autofree char *count_name = g_strconcat(m->stat, "count", NULL);
    const struct param *count = param_find(&s->stats, count_name);
    for (unsigned i = 0; count && i < count->u; i++) {
        g_autofree char *name = g_strdup_printf("%s%u.%s", m->stat, i, m->tail);
        g_autofree char *label = g_strdup_printf("%s%u.name", m->stat, i);
        const struct param *value = param_find(&s->stats, name), *device = param_find(&s->stats, label);
        if (value)
            put_value(out, m, s->name, device && device->type == PARAM_STRING ? device->s : "", value);
    }
}

static void put_metric(GString *out, const struct metric *m, const GPtrArray *samples)
{
    g_string_append_printf(out, "# HELP %s %s\n# TYPE %s %s\n", m->name, m->help, m->name, m->type);
    for (unsigned i = 0; i < samples->len; i++) {
        const struct sample *s = samples->pdata[i];
        const struct param *p = m->tail ? NULL : param_find(&s->stats, m->stat);
        if (m->tail)
            put_indexed(out, m, s);
        else if (p)
            put_value(out, m, s->name, NULL, p);
    }
}

static void put_states(GString *out, const GPtrArray *samples)
{
    g_string_append(out, "# HELP libvirt_domain_info_vstate state: 1 running, 3 paused, 4 shutting down, 5 off, 6 crashed\n"
                         "# TYPE libvirt_domain_info_vstate gauge\n");
    for (unsigned i = 0; i < samples->len; i++) {
        const struct sample *s = samples->pdata[i];
        g_string_append(out, "libvirt_domain_info_vstate{");
        put_label(out, "domain", s->name);
        g_string_append_printf(out, "} %d\n", s->state);
    }
}

static void put_host(GString *out, const struct caller *who)
{
    struct node_info info;
    if (node_info(who, &info, NULL))
        g_string_append_printf(out,
                               "# HELP ruche_host_cpus CPUs of the host\n# TYPE ruche_host_cpus gauge\nruche_host_cpus %u\n"
                               "# HELP ruche_host_memory_bytes memory of the host\n# TYPE ruche_host_memory_bytes gauge\n"
                               "ruche_host_memory_bytes %" PRIu64 "\n",
                               info.cpus, info.memory_kib * 1024);
    g_string_append_printf(out,
                           "# HELP ruche_host_memory_free_bytes memory that is free\n# TYPE ruche_host_memory_free_bytes gauge\n"
                           "ruche_host_memory_free_bytes %" PRIu64 "\n"
                           "# HELP libvirt_domains machines by activity\n# TYPE libvirt_domains gauge\n"
                           "libvirt_domains{state=\"active\"} %u\nlibvirt_domains{state=\"inactive\"} %u\n"
                           "# HELP libvirt_up the manager answers\n# TYPE libvirt_up gauge\nlibvirt_up 1\n",
                           node_free_memory(), domain_count(true), domain_count(false));
}

static void put_awake(GString *out)
{
    struct awake_figures f;
    awake_figures(&f);
    g_string_append_printf(out,
                           "# HELP ruche_awake_seconds_total time that processors stayed awake for clients that call in quick succession\n"
                           "# TYPE ruche_awake_seconds_total counter\nruche_awake_seconds_total %.6f\n"
                           "# HELP ruche_awake_times_total how often that began\n"
                           "# TYPE ruche_awake_times_total counter\nruche_awake_times_total %" PRIu64 "\n",
                           (double)f.total_us / 1e6, f.times);
}

static const struct pool_metric {
    const char *name, *help;
    size_t offset;
} pool_metrics[] = {
    { "libvirt_pool_info_capacity_bytes", "room of the storage pool", offsetof(struct pool, capacity) },
    { "libvirt_pool_info_allocation_bytes", "what is used of it", offsetof(struct pool, allocation) },
    { "libvirt_pool_info_available_bytes", "what is free of it", offsetof(struct pool, available) },
};

static void put_pool(GString *out, const char *name, const struct pool *p, uint64_t value)
{
    g_string_append_printf(out, "%s{", name);
    put_label(out, "pool", p->name);
    g_string_append_printf(out, "} %" PRIu64 "\n", value);
}

static void put_pools(GString *out, const struct caller *who)
{
    enum { ACTIVE = 2 };
    g_autoptr(GPtrArray) pools = pool_list(who, ACTIVE);
    for (size_t m = 0; m < G_N_ELEMENTS(pool_metrics); m++) {
        const struct pool_metric *row = &pool_metrics[m];
        g_string_append_printf(out, "# HELP %s %s\n# TYPE %s gauge\n", row->name, row->help, row->name);
        for (unsigned i = 0; i < pools->len; i++)
            put_pool(out, row->name, pools->pdata[i], *(const uint64_t *)((const char *)pools->pdata[i] + row->offset));
    }
    g_string_append(out, "# HELP ruche_pool_promised_bytes what its volumes may grow to\n# TYPE ruche_pool_promised_bytes gauge\n");
    for (unsigned i = 0; i < pools->len; i++)
        put_pool(out, "ruche_pool_promised_bytes", pools->pdata[i], pool_promised(pools->pdata[i]));
    g_string_append(out, "# HELP ruche_pool_over_threshold it is fuller than its threshold\n# TYPE ruche_pool_over_threshold gauge\n");
    for (unsigned i = 0; i < pools->len; i++)
        put_pool(out, "ruche_pool_over_threshold", pools->pdata[i], ((const struct pool *)pools->pdata[i])->warned);
}

char *web_metrics(const struct caller *who, GError **error)
{
    if (!access_check(who, RIGHT_READ, "read metrics", error))
        return NULL;
    g_autoptr(GPtrArray) domains = domain_list(who, 0);
    g_autoptr(GPtrArray) samples = g_ptr_array_new_with_free_func(sample_free);
    for (unsigned i = 0; i < domains->len; i++) {
        struct domain *d = domains->pdata[i];
        struct sample *s = g_new0(struct sample, 1);
        g_ptr_array_add(samples, s);
        s->name = g_strdup(domain_summary(d)->name);
        s->state = d->state;
        if (domain_is_active(d))
            domain_stats(who, d, 0, 0, &s->stats, NULL);
    }
    GString *out = g_string_new(NULL);
    put_host(out, who);
    put_awake(out);
    put_pools(out, who);
    put_states(out, samples);
    for (size_t i = 0; i < G_N_ELEMENTS(metrics); i++)
        put_metric(out, &metrics[i], samples);
    return g_string_free(out, FALSE);
}
