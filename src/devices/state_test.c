/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Saved states of whole machines: what is loaded is saved again as the same bytes, and nothing that
 * a file can say ends the program.
 *
 * The machines have every device that needs no backend, and the software processor.
 */
#include "machine/state.h"

#include "devices/pci/pci.h"
#include "machine/backends.h"

#include <string.h>

static const char *const q35_devices[] = {
    "pcie-root-port,id=rp0",
    "virtio-rng-pci,max-bytes=4096,period=1000",
    "virtio-net-pci,mac=52:54:00:00:00:01",
    "virtio-balloon-pci,free-page-reporting=on",
    "virtio-serial-pci,id=vs0",
    "virtconsole,nr=0",
    "virtserialport,nr=1,name=agent",
    "isa-serial",
    "isa-debugcon",
    "pvpanic",
    "pc-testdev",
    "isa-debug-exit",
    "virtio-net-pci,id=behind,bus=rp0,mac=52:54:00:00:00:02",
    NULL,
};
static const char *const microvm_devices[] = {
    "virtio-rng-pci,packed=on",
    "virtio-net-pci,packed=on,vectors=0,mac=52:54:00:00:00:01",
    "isa-serial",
    NULL,
};

static void add_device(struct machine *m, const char *text)
{
    g_autoptr(GError) error = NULL;
    g_auto(GStrv) part = g_strsplit(text, ",", -1);
    struct device *d = device_new(m, part[0], &error);
    g_assert_no_error(error);
    for (char **p = part + 1; *p; p++) {
        char *value = strchr(*p, '=');
        *value++ = 0;
        if (!strcmp(*p, "id"))
            d->id = g_strdup(value);
        else if (!strcmp(*p, "bus"))
            d->bus_name = g_strdup(value);
        else
            device_set(d, *p, value, &error);
        g_assert_no_error(error);
    }
    device_realize(d, &error);
    g_assert_no_error(error);
}

static struct machine *make_of(const char *board, unsigned vcpus, const char *const *devices,
                               struct loop *l)
{
    struct machine_config c;
    g_autofree char *note = NULL;
    g_autoptr(GError) error = NULL;
    machine_config_init(&c);
    c.ram_bytes = 16 * MIB;
    c.cpu_count = c.max_cpus = c.topology.cores = vcpus;
    c.rtc_offset_s = -1000;
    struct machine *m = machine_new(board_type_find(board), &c, "soft", l, &note, &error);
    g_assert_no_error(error);
    for (; *devices; devices++)
        add_device(m, *devices);
    return m;
}

struct fixture {
    struct loop *loop;
    struct machine *from, *to;
};

static struct fixture make(const char *board, unsigned vcpus)
{
    const char *const *devices = strcmp(board, "q35") ? microvm_devices : q35_devices;
    struct fixture f = {.loop = loop_new("test")};
    f.from = make_of(board, vcpus, devices, f.loop);
    f.to = make_of(board, vcpus, devices, f.loop);
    g_autoptr(GError) error = NULL;
    machine_power_on(f.from, &error);
    g_assert_no_error(error);
    return f;
}

static void done(struct fixture *f)
{
    machine_free(f->from);
    machine_free(f->to);
    loop_free(f->loop);
}

static GByteArray *save(struct machine *m)
{
    g_autoptr(GError) error = NULL;
    GByteArray *a = machine_state_save(m, &error);
    g_assert_no_error(error);
    return a;
}

static void load(struct machine *m, const GByteArray *a)
{
    g_autoptr(GError) error = NULL;
    machine_state_load(m, a->data, a->len, &error);
    g_assert_no_error(error);
}

/* The last two names in front of byte `at`: roughly where it is. */
static char *place_of(const GByteArray *a, guint at)
{
    GString *s = g_string_new(NULL);
    unsigned names = 0;
    for (guint end = at; end > 4 && names < 2; end--) {
        guint len = 0;
        while (
            len < end &&
            (g_ascii_isalnum(a->data[end - len - 1]) || strchr("._- []", a->data[end - len - 1])) &&
            a->data[end - len - 1])
            len++;
        if (len < 3 || len > 60)
            continue;
        g_string_append_printf(s, " %.*s", (int)len, (const char *)a->data + end - len);
        names++;
        end -= len;
    }
    return g_string_free(s, false);
}

static void assert_same(const GByteArray *a, const GByteArray *b)
{
    for (guint i = 0; i < MIN(a->len, b->len); i++) {
        if (a->data[i] == b->data[i])
            continue;
        g_autofree char *place = place_of(a, i);
        g_error("byte %u is 0x%02x and then 0x%02x, near%s", i, a->data[i], b->data[i], place);
    }
    g_assert_cmpuint(a->len, ==, b->len);
}

static uint64_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005ULL + 1442695040888963407ULL;
    return *seed >> 33;
}

/* Ports whose writes ask for the machine's end are left out. */
static bool harmless(uint16_t port)
{
    return port != 0x92 && port != 0xcf9 && port != 0x64 && port != 0x604 && port != 0x606 &&
           port != 0x501 && port != 0x502 && port != 0x505;
}

/* What a guest could have done to the registers of all devices. */
static void scribble(struct machine *m, uint64_t seed, unsigned writes)
{
    static const uint16_t ports[][2] = {
        {0x20, 0x21}, {0xa0, 0xa1},   {0x40, 0x43},   {0x60, 0x64},   {0x70, 0x73}, {0x3f8, 0x3ff},
        {0xb2, 0xb3}, {0x4d0, 0x4d1}, {0x510, 0x517}, {0x600, 0x67f}, {0xe0, 0xe8},
    };
    static const struct {
        uint64_t base, size;
    } windows[] = {
        {0xfec00000, 0x50},     {0xfed00000, 0x400},    {0xb0000000, 32 << 15},
        {0xc0000000, 0x100000}, {0xe0000000, 32 << 15},
    };
    for (unsigned i = 0; i < writes; i++) {
        uint64_t val = next_random(&seed), which = next_random(&seed);
        if (which & 1) {
            const uint16_t *p = ports[next_random(&seed) % ARRAY_COUNT(ports)];
            uint16_t port = (uint16_t)(p[0] + next_random(&seed) % (p[1] - p[0] + 1u));
            if (harmless(port))
                mem_io_write(m->io, port, val, 1);
        } else {
            unsigned w = next_random(&seed) % ARRAY_COUNT(windows);
            uint64_t at = windows[w].base + (next_random(&seed) % windows[w].size & ~3ULL);
            mem_io_write(m->memory, at, which & 2 ? val : val & 0xff, 4);
        }
    }
}

static void test_round_trip(const char *board, unsigned vcpus)
{
    struct fixture f = make(board, vcpus);
    for (unsigned round = 0; round < 12; round++) {
        scribble(f.from, round * 77 + 1, 400);
        g_autoptr(GByteArray) first = save(f.from);
        load(f.to, first);
        g_autoptr(GByteArray) second = save(f.to);
        assert_same(first, second);
    }
    done(&f);
}

static void test_q35(void)
{
    test_round_trip("q35", 2);
}

static void test_microvm(void)
{
    test_round_trip("microvm", 1);
}

/* Into a machine that has gone on: nothing of what it did stays. */
static void test_over_used(void)
{
    struct fixture f = make("q35", 1);
    scribble(f.from, 5, 400);
    g_autoptr(GByteArray) first = save(f.from);
    scribble(f.to, 6, 400);
    load(f.to, first);
    g_autoptr(GByteArray) second = save(f.to);
    assert_same(first, second);
    done(&f);
}

static void expect_refusal(struct machine *m, const GByteArray *a, const char *why)
{
    g_autoptr(GError) error = NULL;
    g_assert_false(machine_state_load(m, a->data, a->len, &error));
    g_assert_nonnull(error);
    if (!strstr(error->message, why))
        g_error("'%s' does not say '%s'", error->message, why);
}

static struct device *find(struct machine *m, const char *id)
{
    struct device *d = machine_find_device(m, id);
    g_assert_nonnull(d);
    return d;
}

/* The port's slot as guests write it; *ret_seen: the function behind answers. */
static void write_slot(struct machine *m, uint16_t control)
{
    struct pci_device *port = container_of(find(m, "rp0"), struct pci_device, dev);
    pci_bus_config_write(m->pci, 0, port->devfn, port->exp_cap + 24u, 2, control);
}

static bool seen(struct machine *m)
{
    struct pci_device *port = container_of(find(m, "rp0"), struct pci_device, dev);
    uint8_t bus = (uint8_t)pci_bus_config_read(m->pci, 0, port->devfn, 0x19, 1);
    return pci_bus_config_read(m->pci, bus, 0, 0, 2) == 0x1af4;
}

/* A slot that was powered off, or whose device has just lost its power and is not reset yet, is so
 * in the other machine. */
static void test_slot_power(void)
{
    struct fixture f = make("q35", 1);
    g_autoptr(GByteArray) on = save(f.from);
    g_assert_true(seen(f.from));
    write_slot(f.from, 0x05c0);
    g_assert_false(seen(f.from));
    g_autoptr(GByteArray) off = save(f.from);
    write_slot(f.from, 0x01c0);
    g_assert_false(seen(f.from));
    g_autoptr(GByteArray) stale = save(f.from);
    load(f.to, off);
    g_assert_false(seen(f.to));
    load(f.to, on);
    g_assert_true(seen(f.to));
    load(f.to, stale);
    g_assert_false(seen(f.to));
    loop_once(f.loop, 0); /* the reset */
    g_assert_true(seen(f.to));
    load(f.to, off);
    write_slot(f.to, 0x01c0);
    for (int i = 0; i < 4; i++)
        loop_once(f.loop, 0);
    g_assert_true(seen(f.to));
    done(&f);
}

/* A device that was plugged in comes last there, and elsewhere when -device names it. */
static void test_plugged(void)
{
    static const char *const before[] = {"pcie-root-port,id=rp0", "pcie-root-port,id=rp1", NULL},
                             *const after[] = {"virtio-rng-pci,id=b,bus=rp1",
                                               "virtio-rng-pci,id=a,bus=rp0", NULL};
    struct loop *l = loop_new("test");
    const char *all[5] = {before[0], before[1], after[1], after[0], NULL};
    struct machine *from = make_of("q35", 1, before, l), *to = make_of("q35", 1, all, l),
                   *empty = make_of("q35", 1, before, l);
    g_autoptr(GError) error = NULL;
    g_assert_true(machine_power_on(from, &error));
    for (const char *const *text = after; *text; text++)
        add_device(from, *text);
    for (const char *const *id = (const char *const[]){"a", "b", NULL}; *id; id++) {
        device_reset(find(from, *id));
        pci_plug(container_of(find(from, *id), struct pci_device, dev));
    }
    g_assert_false(seen(from));
    write_slot(from, 0x01c0);
    g_assert_true(seen(from));
    g_autoptr(GByteArray) a = save(from);
    load(to, a);
    g_assert_true(seen(to));
    expect_refusal(empty, a,
                   "the machine's state has 'device b', which this machine does not have");
    g_autoptr(GByteArray) none = save(empty);
    expect_refusal(to, none, "the machine's state lacks 'device ");
    machine_free(from);
    machine_free(to);
    machine_free(empty);
    loop_free(l);
}

static void test_other_machines(void)
{
    struct fixture f = make("q35", 2);
    g_autoptr(GByteArray) a = save(f.from);
    static const char *const few[] = {"isa-serial", NULL};
    struct machine *board = make_of("microvm", 2, microvm_devices, f.loop),
                   *one = make_of("q35", 1, q35_devices, f.loop),
                   *bare = make_of("q35", 2, few, f.loop);
    expect_refusal(board, a,
                   "the state is of a machine with board 'q35', and this one has 'microvm'");
    expect_refusal(one, a, "the state is of a machine with topology");
    expect_refusal(bare, a,
                   "the machine's state has 'device rp0', which this machine does not have");
    machine_free(board);
    machine_free(one);
    machine_free(bare);
    done(&f);
}

/* Every cut is refused with a sentence. */
static void test_cut(void)
{
    struct fixture f = make("microvm", 1);
    g_autoptr(GByteArray) a = save(f.from);
    for (guint len = 0; len < a->len; len += len < 2000 || len > a->len - 200 ? 1 : 97) {
        g_autoptr(GError) error = NULL;
        g_autofree uint8_t *copy = g_memdup2(a->data, len ? len : 1);
        g_assert_false(machine_state_load(f.to, copy, len, &error));
        g_assert_nonnull(error);
    }
    load(f.to, a);
    done(&f);
}

/* A wrong byte: an error, or a machine that is saved, reset and powered on like any other. */
static void test_flips(void)
{
    struct fixture f = make(g_test_thorough() ? "q35" : "microvm", 1);
    g_autoptr(GByteArray) a = save(f.from);
    unsigned step = g_test_thorough() ? 1 : 61, taken = 0, refused = 0;
    for (guint i = 0; i < a->len; i += step) {
        g_autoptr(GError) error = NULL;
        uint8_t was = a->data[i];
        a->data[i] ^= (uint8_t)(i % 3 == 0 ? 0xff : 1u << i % 8);
        if (machine_state_load(f.to, a->data, a->len, &error)) {
            g_byte_array_unref(save(f.to));
            taken++;
        } else {
            g_assert_nonnull(error);
            refused++;
        }
        a->data[i] = was;
    }
    g_test_message("%u taken, %u refused", taken, refused);
    g_assert_cmpuint(taken, >, 0);
    g_assert_cmpuint(refused, >, 0);
    load(f.to, a);
    done(&f);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/state/q35", test_q35);
    g_test_add_func("/state/microvm", test_microvm);
    g_test_add_func("/state/slot-power", test_slot_power);
    g_test_add_func("/state/plugged", test_plugged);
    g_test_add_func("/state/over-used", test_over_used);
    g_test_add_func("/state/other-machines", test_other_machines);
    g_test_add_func("/state/cut", test_cut);
    g_test_add_func("/state/flips", test_flips);
    return g_test_run();
}
