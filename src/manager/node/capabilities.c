/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The capabilities document: what the host is, and what guests its emulators run.
 *
 * Spec      libvirt's formatcaps at 9.0.0; it validates against capability.rng.
 * Thread    The loop thread; waits while an emulator is asked for the first time.
 */
#include "manager/markup.h"
#include "manager/node/cpu.h"
#include "manager/node/emulator.h"
#include "manager/node/topology.h"
#include "manager/uuid.h"

#include <string.h>

static void add_cpu(GString *b, const struct topology *t, const struct node_info *n)
{
    const struct cpu_host *h = cpu_host();
    markup_add(b, "    <cpu>\n      <arch>%s</arch>\n", n->model);
    if (h->family) {
        const struct cpu_model *m =
            cpu_model_best(&h->features, h->vendor, h->family * 256 + h->model);
        struct cpu_features more = cpu_minus(h->features, m->features);
        markup_add(b, "      <model>%s</model>\n", m->name);
        if (h->vendor)
            markup_add(b, "      <vendor>%s</vendor>\n", h->vendor);
        if (h->microcode)
            markup_add(b, "      <microcode version='%u'/>\n", h->microcode);
        markup_add(b, "      <signature family='%u' model='%u' stepping='%u'/>\n", h->family,
                   h->model, h->stepping);
        markup_add(b, "      <topology sockets='%u' dies='1' cores='%u' threads='%u'/>\n",
                   n->sockets, n->cores, n->threads);
        if (h->address_bits)
            markup_add(b, "      <maxphysaddr mode='emulate' bits='%u'/>\n", h->address_bits);
        for (unsigned i = 0; i < cpu_feature_count(); i++)
            if (cpu_has(&more, i))
                markup_add(b, "      <feature name='%s'/>\n", cpu_feature_name(i));
    }
    for (unsigned i = 0; i < t->cells[0].page_sizes; i++)
        markup_add(b, "      <pages unit='KiB' size='%u'/>\n", t->cells[0].pages[i].size_kib);
    g_string_append(b, "    </cpu>\n");
}

static void add_power(GString *b)
{
    static const char *const rows[][2] = {{"mem", "suspend_mem"}, {"disk", "suspend_disk"}};
    g_autofree char *states = sysfs_read("/sys/power/state");
    g_auto(GStrv) words = g_strsplit(states ? states : "", " ", 16);
    g_autoptr(GString) inner = g_string_new(NULL);
    for (unsigned i = 0; i < ARRAY_COUNT(rows); i++)
        if (g_strv_contains((const char *const *)words, rows[i][0]))
            markup_add(inner, "      <%s/>\n", rows[i][1]);
    if (inner->len)
        g_string_append_printf(b, "    <power_management>\n%s    </power_management>\n",
                               inner->str);
    else
        g_string_append(b, "    <power_management/>\n");
}

static bool has_iommu(void)
{
    g_autofree char *path = sysfs_path("/sys/kernel/iommu_groups");
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    return dir && g_dir_read_name(dir);
}

static void add_cell(GString *b, const struct topology *t, const struct topology_cell *c)
{
    unsigned count = 0;
    markup_add(b, "        <cell id='%u'>\n          <memory unit='KiB'>%" PRIu64 "</memory>\n",
               c->id, c->memory_kib);
    for (unsigned i = 0; i < c->page_sizes; i++)
        markup_add(b, "          <pages unit='KiB' size='%u'>%" PRIu64 "</pages>\n",
                   c->pages[i].size_kib, c->pages[i].count);
    if (c->distances && c->distances->len == t->cell_count) {
        g_string_append(b, "          <distances>\n");
        for (unsigned i = 0; i < t->cell_count; i++)
            markup_add(b, "            <sibling id='%u' value='%u'/>\n", t->cells[i].id,
                       g_array_index(c->distances, unsigned, i));
        g_string_append(b, "          </distances>\n");
    }
    for (unsigned i = 0; i < t->cpu_count; i++)
        count += t->cpus[i].online && t->cpus[i].cell == c->id;
    markup_add(b, "          <cpus num='%u'>\n", count);
    for (unsigned i = 0; i < t->cpu_count; i++) {
        const struct topology_cpu *p = &t->cpus[i];
        if (p->online && p->cell == c->id)
            markup_add(b,
                       "            <cpu id='%u' socket_id='%u' die_id='%u' core_id='%u' "
                       "siblings='%s'/>\n",
                       p->id, p->socket, p->die, p->core, p->siblings);
    }
    g_string_append(b, "          </cpus>\n        </cell>\n");
}

static void add_topology(GString *b, const struct topology *t)
{
    markup_add(b, "    <topology>\n      <cells num='%u'>\n", t->cell_count);
    for (unsigned i = 0; i < t->cell_count; i++)
        add_cell(b, t, &t->cells[i]);
    g_string_append(b, "      </cells>\n    </topology>\n");
}

static void add_caches(GString *b, const struct topology *t)
{
    if (!t->caches->len)
        return;
    g_string_append(b, "    <cache>\n");
    for (unsigned i = 0; i < t->caches->len; i++) {
        const struct topology_cache *c = &g_array_index(t->caches, struct topology_cache, i);
        bool mib = c->size_kib % 1024 == 0;
        markup_add(b,
                   "      <bank id='%u' level='%u' type='%s' size='%" PRIu64
                   "' unit='%s' cpus='%s'/>\n",
                   c->id, c->level, c->type, mib ? c->size_kib / 1024 : c->size_kib,
                   mib ? "MiB" : "KiB", c->cpus);
    }
    g_string_append(b, "    </cache>\n");
}

static void add_host(GString *b, const struct topology *t, const struct node_info *n)
{
    char uuid[UUID_TEXT_BYTES];
    uuid_format(manager.host_uuid, uuid);
    markup_add(b, "\n  <host>\n    <uuid>%s</uuid>\n", uuid);
    add_cpu(b, t, n);
    add_power(b);
    markup_add(b, "    <iommu support='%s'/>\n", has_iommu() ? "yes" : "no");
    g_string_append(b, "    <migration_features>\n      <live/>\n      <uri_transports>\n"
                       "        <uri_transport>tcp</uri_transport>\n      </uri_transports>\n"
                       "    </migration_features>\n");
    add_topology(b, t);
    add_caches(b, t);
    markup_add(b,
               "    <secmodel>\n      <model>%s</model>\n      <doi>0</doi>\n    </secmodel>\n  "
               "</host>\n\n",
               node_security_model());
}

static void add_machines(GString *b, const struct emulator_full *f)
{
    for (unsigned i = 0; i < f->machine_count; i++) {
        const struct emulator_machine *m = &f->machine_rows[i];
        const char *old = m->deprecated ? " deprecated='yes'" : "";
        g_string_append_printf(b, "      <machine maxCpus='%u'%s>", m->cpu_max, old);
        markup_add(b, "%s</machine>\n", m->name);
        if (m->alias)
            markup_add(b, "      <machine canonical='%s' maxCpus='%u'>%s</machine>\n", m->name,
                       m->cpu_max, m->alias);
    }
    const struct emulator_machine *pc = f->e.ours ? emulator_machine(f, "pc") : NULL;
    if (pc)
        markup_add(b, "      <machine canonical='%s' maxCpus='%u'>pc</machine>\n", pc->name,
                   pc->cpu_max);
}

static bool is_64_bit(const char *arch)
{
    return strstr(arch, "64") || !strcmp(arch, "s390x") || !strcmp(arch, "alpha");
}

static void add_guest(GString *b, const struct emulator_full *f)
{
    bool x86 = !strcmp(f->e.arch, "x86_64") || !strcmp(f->e.arch, "i686");
    markup_add(b,
               "  <guest>\n    <os_type>hvm</os_type>\n    <arch name='%s'>\n      "
               "<wordsize>%d</wordsize>\n",
               f->e.arch, is_64_bit(f->e.arch) ? 64 : 32);
    markup_add(b, "      <emulator>%s</emulator>\n", f->e.path);
    add_machines(b, f);
    g_string_append(b, "      <domain type='qemu'/>\n");
    if (f->e.kvm)
        g_string_append(b, "      <domain type='kvm'/>\n");
    g_string_append(b, "    </arch>\n    <features>\n");
    if (!strcmp(f->e.arch, "i686"))
        g_string_append(b, "      <pae/>\n      <nonpae/>\n");
    if (x86)
        g_string_append(
            b, "      <acpi default='on' toggle='yes'/>\n      <apic default='on' toggle='no'/>\n");
    g_string_append(
        b, "      <cpuselection/>\n      <deviceboot/>\n"
           "      <disksnapshot default='on' toggle='no'/>\n    </features>\n  </guest>\n\n");
}

char *node_capabilities(const struct caller *who, GError **error)
{
    struct node_info n;
    if (!node_info(who, &n, error))
        return NULL;
    auto_topology *t = node_topology();
    g_autoptr(GPtrArray) all = emulator_all();
    GString *b = g_string_new("<capabilities>\n");
    add_host(b, t, &n);
    for (unsigned i = 0; i < all->len; i++)
        add_guest(b, all->pdata[i]);
    g_string_append(b, "</capabilities>\n");
    return g_string_free(b, FALSE);
}
