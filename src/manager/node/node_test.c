/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The host as a made-up /sys and /proc tell it, processors as sets of features, emulators as their
 * QMP tells them. The program's arguments: ruche-vmm (may be missing: then what needs it is
 * skipped). */
#include "base/scratch.h"
#include "manager/node/cpu.h"
#include "manager/node/emulator.h"
#include "manager/node/topology.h"

#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char *root, *vmm;

static void run(void (*fn)(void *opaque), void *opaque)
{
    task_start(fn, opaque);
    while (task_count())
        g_main_context_iteration(NULL, true);
}

static void put(const char *path, const char *text)
{
    g_autofree char *full = g_strconcat(root, path, NULL);
    g_autofree char *dir = g_path_get_dirname(full);
    g_assert_cmpint(g_mkdir_with_parents(dir, 0700), ==, 0);
    g_assert_true(g_file_set_contents(full, text, -1, NULL));
}

static void remove_tree(const char *path)
{
    g_autoptr(GDir) dir = g_dir_open(path, 0, NULL);
    const char *name;
    while (dir && (name = g_dir_read_name(dir))) {
        g_autofree char *full = g_build_filename(path, name, NULL);
        remove_tree(full);
    }
    g_remove(path);
}

static void put_cpu(unsigned id, unsigned socket, unsigned core, const char *siblings)
{
    const char *const names[] = {"physical_package_id", "core_id", "thread_siblings_list"};
    g_autofree char *s = g_strdup_printf("%u\n", socket), *c = g_strdup_printf("%u\n", core);
    const char *const values[] = {s, c, siblings};
    for (unsigned i = 0; i < 3; i++) {
        g_autofree char *path =
            g_strdup_printf("/sys/devices/system/cpu/cpu%u/topology/%s", id, names[i]);
        put(path, values[i]);
    }
}

/* Two cells, a socket each, two cores of two threads; the last CPU is off. */
static void make_host(bool all_online)
{
    remove_tree(root);
    for (unsigned i = 0; i < 8; i++) {
        g_autofree char *siblings = g_strdup_printf("%u,%u\n", i & ~1u, i | 1u);
        put_cpu(i, i / 4, i % 4 / 2, siblings);
    }
    put("/sys/devices/system/cpu/cpu7/online", all_online ? "1\n" : "0\n");
    put("/sys/devices/system/cpu/cpuidle/x", "");
    put("/sys/devices/system/node/node0/cpulist", "0-3\n");
    put("/sys/devices/system/node/node1/cpulist", "4-7\n");
    put("/sys/devices/system/node/node0/distance", "10 21\n");
    put("/sys/devices/system/node/node1/distance", "21 10\n");
    put("/sys/devices/system/node/node0/meminfo",
        "Node 0 MemTotal:  4194304 kB\nNode 0 MemFree:  1048576 kB\n");
    put("/sys/devices/system/node/node1/meminfo",
        "Node 1 MemTotal:  2097152 kB\nNode 1 MemFree:  524288 kB\n");
    put("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages", "512\n");
    put("/sys/devices/system/node/node0/hugepages/hugepages-2048kB/free_hugepages", "100\n");
    put("/sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages", "0\n");
    put("/proc/meminfo",
        "MemTotal:  6291456 kB\nMemFree:  1572864 kB\nBuffers:  10 kB\nCached:  20 kB\n");
    put("/proc/cpuinfo", "processor\t: 0\ncpu MHz\t\t: 2596.123\nmicrocode\t: 0x10\n");
    put("/proc/stat", "cpu  100 10 50 1000 5 2 3 0 0 0\ncpu0 60 0 30 500 1 0 0 0 0 0\nintr 5\n");
    put("/sys/power/state", "freeze mem\n");
}

static void test_info(void)
{
    struct node_info n;
    make_host(true);
    g_assert_true(node_info(&caller_self, &n, NULL));
    g_assert_cmpuint(n.memory_kib, ==, 6291456);
    g_assert_cmpuint(n.cpus, ==, 8);
    g_assert_cmpuint(n.mhz, ==, 2596);
    g_assert_cmpuint(n.nodes, ==, 2);
    g_assert_cmpuint(n.sockets, ==, 1);
    g_assert_cmpuint(n.cores, ==, 2);
    g_assert_cmpuint(n.threads, ==, 2);
    make_host(false); /* uneven: the product cannot be right, so it is flat */
    g_assert_true(node_info(&caller_self, &n, NULL));
    g_assert_cmpuint(n.cpus, ==, 7);
    g_assert_cmpuint(n.nodes * n.sockets * n.cores * n.threads, ==, 7);
}

static void test_maps(void)
{
    make_host(false);
    uint8_t *map = NULL;
    unsigned online;
    g_assert_cmpint(node_cpu_map(&map, &online), ==, 8);
    g_assert_cmpuint(map[0], ==, 0x7f);
    g_assert_cmpuint(online, ==, 7);
    g_free(map);
    uint64_t bytes[4];
    g_assert_cmpint(node_cells_free_memory(bytes, 0, 4), ==, 2);
    g_assert_cmpuint(bytes[1], ==, 524288ULL * 1024);
    g_assert_cmpint(node_cells_free_memory(bytes, 1, 4), ==, 1);
    g_assert_cmpuint(node_free_memory(), ==, 1572864ULL * 1024);
}

static void test_stats(void)
{
    make_host(true);
    struct param_list l = {0};
    uint64_t tick = (uint64_t)(NS_PER_SEC / sysconf(_SC_CLK_TCK));
    g_assert_true(node_cpu_stats(&caller_self, -1, &l, NULL));
    g_assert_cmpuint(param_find(&l, "kernel")->u, ==, 55 * tick);
    g_assert_cmpuint(param_find(&l, "user")->u, ==, 110 * tick);
    g_assert_cmpuint(param_find(&l, "iowait")->u, ==, 5 * tick);
    param_list_done(&l);
    g_autoptr(GError) error = NULL;
    g_assert_false(node_cpu_stats(&caller_self, 5, &l, &error));
    g_assert_nonnull(strstr(error->message, "number 5"));
    g_assert_true(node_memory_stats(&caller_self, -1, &l, NULL));
    g_assert_cmpuint(l.count, ==, 4);
    g_assert_cmpuint(param_find(&l, "cached")->u, ==, 20);
    param_list_done(&l);
    g_assert_true(node_memory_stats(&caller_self, 1, &l, NULL));
    g_assert_cmpuint(l.count, ==, 2);
    g_assert_cmpuint(param_find(&l, "total")->u, ==, 2097152);
    param_list_done(&l);
    g_assert_false(node_memory_stats(&caller_self, 9, &l, NULL));
}

static void test_pages(void)
{
    make_host(true);
    unsigned sizes[] = {4, 2048};
    uint64_t counts[4];
    g_assert_cmpint(node_free_pages(sizes, 2, 0, 1, counts, NULL), ==, 2);
    g_assert_cmpuint(counts[0], ==, 1048576 / 4);
    g_assert_cmpuint(counts[1], ==, 100);
    g_assert_cmpint(node_free_pages(sizes, 1, 0, 8, counts, NULL), ==, 2);
    g_assert_cmpuint(counts[1], ==, 524288 / 4);
    g_autoptr(GError) error = NULL;
    g_assert_cmpint(node_free_pages(sizes, 1, 7, 1, counts, &error), ==, -1);
    g_assert_nonnull(strstr(error->message, "start cell 7"));
}

static void test_sets(void)
{
    struct cpu_set s;
    g_assert_true(cpu_set_parse(&s, "0-3,8,10-11"));
    g_assert_cmpuint(cpu_set_count(&s), ==, 7);
    g_autofree char *text = cpu_set_text(&s);
    g_assert_cmpstr(text, ==, "0-3,8,10-11");
    static const char *const bad[] = {"", "x", "3-1", "1-", "-1", "0-99999999", "1,,2", "1 2"};
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++)
        g_assert_false(cpu_set_parse(&s, bad[i]));
}

static void test_sysinfo(void)
{
    make_host(true);
    g_autoptr(GError) error = NULL;
    g_assert_null(node_sysinfo(&caller_self, &error));
    g_assert_true(g_error_matches(error, RUCHE_ERROR, RUCHE_ERR_UNSUPPORTED));
    put("/sys/class/dmi/id/bios_vendor", "Bee & Sons <\xff\x01>\n");
    put("/sys/class/dmi/id/product_name", "Hive\n");
    g_autofree char *text = node_sysinfo(&caller_self, NULL);
    auto_xml *doc = xml_parse(text, strlen(text), "sysinfo", NULL);
    g_assert_nonnull(doc);
    g_assert_cmpstr(xml_get(doc, "system/entry"), ==, "Hive");
}

/* A processor made of three answers: an Intel of family 6, model 0x55 with AVX2 and CLMUL. */
static void fake_cpuid(uint32_t leaf, uint32_t subleaf, uint32_t regs[4])
{
    memset(regs, 0, 16);
    if (leaf == 0) {
        regs[0] = 7;
        memcpy(&regs[1], "Genu", 4);
        memcpy(&regs[3], "ineI", 4);
        memcpy(&regs[2], "ntel", 4);
    } else if (leaf == 1) {
        regs[0] = 0x50654;
        regs[2] = 1u << 1;
    } else if (leaf == 7) {
        regs[1] = 1u << 5;
    } else if (leaf == 0x80000000) {
        regs[0] = 0x80000008;
    } else if (leaf == 0x80000008) {
        regs[0] = 46;
    }
}

static void test_host_cpu(void)
{
    struct cpu_host h;
    cpu_host_read(&h, fake_cpuid);
    g_assert_cmpstr(h.vendor, ==, "Intel");
    g_assert_cmpuint(h.family, ==, 6);
    g_assert_cmpuint(h.model, ==, 0x55);
    g_assert_cmpuint(h.stepping, ==, 4);
    g_assert_cmpuint(h.address_bits, ==, 46);
    g_assert_cmpuint(cpu_feature_total(&h.features), ==, 2);
    g_assert_true(cpu_has(&h.features, (unsigned)cpu_feature_find("pclmuldq")));
    g_assert_true(cpu_has(&h.features, (unsigned)cpu_feature_find("avx2")));
}

static void test_models(void)
{
    for (unsigned i = 0; i < cpu_model_count(); i++) {
        const struct cpu_model *m = cpu_model_at(i);
        g_assert_true(cpu_model_find(m->name) == m);
        g_assert_cmpuint(cpu_feature_total(&m->features), >, 0);
        if (g_str_has_prefix(m->name, "cpu64-"))
            continue;
        const struct cpu_model *best = cpu_model_best(&m->features, m->vendor, 0);
        g_assert_cmpuint(cpu_feature_total(&best->features), ==, cpu_feature_total(&m->features));
    }
    /* what the published descriptions say of two of them */
    const struct cpu_model *milan = cpu_model_find("EPYC-Milan"),
                           *nehalem = cpu_model_find("Nehalem");
    g_assert_true(cpu_has(&milan->features, (unsigned)cpu_feature_find("pku")));
    g_assert_false(cpu_has(&milan->features, (unsigned)cpu_feature_find("monitor")));
    g_assert_true(cpu_has(&nehalem->features, (unsigned)cpu_feature_find("sse4.2")));
    g_assert_false(cpu_has(&nehalem->features, (unsigned)cpu_feature_find("avx")));
    g_assert_cmpuint(milan->signatures[0], ==, 25 * 256 + 1);
}

static char *host_cpu_xml(const char *more)
{
    GString *b = g_string_new("<cpu><arch>x86_64</arch>");
    const struct cpu_host *h = cpu_host();
    for (unsigned i = 0; i < cpu_feature_count(); i++)
        if (cpu_has(&h->features, i))
            g_string_append_printf(b, "<feature name='%s'/>", cpu_feature_name(i));
    g_string_append_printf(b, "%s</cpu>", more);
    return g_string_free(b, FALSE);
}

static void test_compare(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *same = host_cpu_xml(""),
                    *xop = host_cpu_xml("<feature name='xop'/><feature name='fma4'/>");
    g_assert_cmpint(node_compare_cpu(same, 0, NULL), ==, 1);
    g_assert_cmpint(node_compare_cpu("<cpu><model>qemu32</model></cpu>", 0, NULL), >=, 0);
    g_assert_cmpint(node_compare_cpu(xop, 0, NULL), ==, 0);
    g_assert_cmpint(node_compare_cpu(xop, 1, &error), ==, -1);
    g_assert_nonnull(strstr(error->message, "xop"));
    g_clear_error(&error);
    static const char *const bad[] = {
        "",
        "<cpu",
        "<domain/>",
        "<cpu><model>Coffee</model></cpu>",
        "<cpu><feature/></cpu>",
        "<cpu><feature name='warp'/></cpu>",
        "<cpu><feature name='avx' policy='maybe'/></cpu>",
        "<cpu><arch>vax</arch></cpu>",
        "<!DOCTYPE cpu [<!ENTITY a 'b'>]><cpu>&a;</cpu>",
    };
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        g_assert_cmpint(node_compare_cpu(bad[i], 0, &error), ==, -1);
        g_assert_nonnull(error);
        g_clear_error(&error);
    }
    g_assert_cmpint(node_compare_cpu(same, 64, &error), ==, -1);
}

static void test_baseline(void)
{
    char *both[] = {
        (char *)"<cpu><arch>x86_64</arch><model>Haswell</model><vendor>Intel</vendor></cpu>",
        (char *)"<cpu><arch>x86_64</arch><model>Nehalem</model><vendor>Intel</vendor>"
                "<feature name='aes'/></cpu>"};
    char *silent[] = {both[0], (char *)"<cpu><arch>x86_64</arch><model>Nehalem</model></cpu>"};
    g_autofree char *unsaid = node_baseline_cpu(silent, 2, 0, NULL);
    g_assert_null(strstr(unsaid, "vendor"));
    g_autofree char *text = node_baseline_cpu(both, 2, 0, NULL);
    auto_xml *doc = xml_parse(text, strlen(text), "cpu", NULL);
    g_assert_cmpstr(xml_get(doc, "model"), ==, "Westmere");
    g_assert_cmpstr(xml_get(doc, "vendor"), ==, "Intel");
    g_autofree char *expanded = node_baseline_cpu(both, 2, 1, NULL);
    g_assert_nonnull(strstr(expanded, "name='sse4.2'"));
    char *mixed[] = {both[0], (char *)"<cpu><arch>x86_64</arch><model>EPYC</model></cpu>"};
    g_autoptr(GError) error = NULL;
    g_assert_null(node_baseline_cpu(mixed, 2, 0, &error));
    g_assert_nonnull(error);
    g_clear_error(&error);
    g_assert_null(node_baseline_cpu(both, 0, 0, &error));
}

static const char qmp_text[] =
    "{\"QMP\": {}}\r\n{\"return\": {}}\r\nnoise\r\n"
    "{\"return\": {\"qemu\": {\"major\": 7, \"minor\": 2, \"micro\": 22}, \"package\": "
    "\"Debian\"}}\r\n"
    "{\"return\": {\"arch\": \"i386\"}}\r\n"
    "{\"return\": [{\"name\": \"pc-q35-7.2\", \"alias\": \"q35\", \"cpu-max\": 288},"
    " {\"name\": \"pc-i440fx-7.2\", \"alias\": \"pc\", \"cpu-max\": 255, \"is-default\": true}, 7, "
    "{\"name\": 3}]}\r\n"
    "{\"return\": [{\"name\": \"qemu64\", \"typename\": \"a\", \"unavailable-features\": []},"
    " {\"name\": \"EPYC\", \"typename\": \"b\", \"unavailable-features\": [\"svm\"]}]}\r\n"
    "{\"return\": [{\"name\": \"virtio-blk-pci\"}, {\"name\": \"ich9-ahci\"}, {\"name\": 5}]}\r\n"
    "{\"event\": \"SHUTDOWN\"}\r\n";

static void test_answer(void)
{
    g_autoptr(JsonObject) answer = emulator_answer_parse(qmp_text, NULL);
    g_assert_nonnull(answer);
    struct emulator_full *f = emulator_from_answer("/x", answer, NULL);
    g_assert_nonnull(f);
    g_assert_cmpstr(f->e.arch, ==, "i686");
    g_assert_cmpuint(f->e.version, ==, 7002022);
    g_assert_false(f->e.ours);
    g_assert_cmpstr(emulator_machine(f, NULL)->name, ==, "pc-i440fx-7.2");
    g_assert_cmpstr(emulator_machine(f, "q35")->name, ==, "pc-q35-7.2");
    g_assert_null(emulator_machine(f, "vax"));
    g_assert_true(emulator_has(&f->e, "disk.bus", "virtio"));
    g_assert_true(emulator_has(&f->e, "disk.bus", "sata"));
    g_assert_false(emulator_has(&f->e, "disk.bus", "usb"));
    g_assert_true(f->cpus[0].usable);
    g_assert_false(f->cpus[1].usable);
    emulator_full_free(f);
    g_autoptr(GError) error = NULL;
    g_assert_null(emulator_answer_parse("{\"return\": []}\n[1]\n{", &error));
    g_assert_nonnull(strstr(error->message, "version"));
}

static void asks_in_vain(void *opaque)
{
    static const char *const bad[] = {"relative", "/nonexistent/emulator", "/etc/passwd", "/tmp",
                                      "/bin/true"};
    for (unsigned i = 0; i < ARRAY_COUNT(bad); i++) {
        g_autoptr(GError) error = NULL;
        g_assert_null(node_emulator(bad[i], NULL, &error));
        g_assert_nonnull(strstr(error->message, bad[i]));
    }
    g_autofree char *program = g_strconcat(root, "/qemu-system-writable", NULL);
    put("/qemu-system-writable", "#!/bin/sh\n");
    g_assert_cmpint(chmod(program, 0777), ==, 0);
    g_autoptr(GError) error = NULL;
    g_assert_null(node_emulator(program, NULL, &error));
    g_assert_nonnull(strstr(error->message, "belong to root"));
    g_clear_error(&error);
    g_assert_null(node_emulator(NULL, "vax", &error));
    g_assert_nonnull(strstr(error->message, "'vax'"));
}

static void test_no_emulator(void)
{
    run(asks_in_vain, NULL);
}

static void asks_vmm(void *opaque)
{
    g_autoptr(GError) error = NULL;
    const struct emulator *e = node_emulator(NULL, "x86_64", &error);
    g_assert_no_error(error);
    g_assert_true(e->ours);
    g_assert_cmpstr(e->path, ==, vmm);
    g_assert_true(emulator_has(e, "disk.bus", "virtio"));
    g_assert_false(emulator_has(e, "disk.bus", "scsi"));
    g_assert_true(g_strv_contains(e->machines, "q35"));
    g_assert_true(g_strv_contains(e->machines, "pc-q35-7.2"));
    g_assert_true(node_emulator(vmm, NULL, NULL) == e);
    (*(int *)opaque)++;
}

static void asks_documents(void *opaque)
{
    g_autofree char *caps = node_capabilities(&caller_self, NULL);
    g_autofree char *dom =
        node_domain_capabilities(&caller_self, vmm, "x86_64", "q35", "qemu", NULL);
    auto_xml *doc = xml_parse(caps, strlen(caps), "capabilities", NULL);
    const struct xml_node *x = doc;
    g_assert_cmpstr(xml_get(x, "guest/arch/emulator"), ==, vmm);
    g_assert_cmpstr(xml_get(x, "host/topology/cells@num"), ==, "2");
    g_assert_cmpstr(xml_get(x, "host/topology/cells/cell/cpus@num"), ==, "4");
    auto_xml *doc2 = xml_parse(dom, strlen(dom), "domainCapabilities", NULL);
    x = doc2;
    g_assert_cmpstr(xml_get(x, "machine"), ==, "pc-q35-7.2");
    g_assert_cmpstr(xml_get(x, "devices/graphics@supported"), ==, "no");
    g_assert_cmpstr(xml_get(x, "devices/disk@supported"), ==, "yes");
    g_autoptr(GError) error = NULL;
    g_assert_null(
        node_domain_capabilities(&caller_self, vmm, "x86_64", "pc-i440fx-7.2", NULL, &error));
    g_assert_nonnull(strstr(error->message, "pc-i440fx-7.2"));
    g_assert_null(node_domain_capabilities(&caller_self, vmm, "s390x", NULL, NULL, NULL));
    g_assert_null(node_domain_capabilities(&caller_self, NULL, NULL, NULL, "xen", NULL));
    const char *keep =
        g_getenv("NODE_TEST_KEEP"); /* a folder: for looking at them with other programs */
    if (keep) {
        g_autofree char *a = g_build_filename(keep, "caps.xml", NULL),
                        *b = g_build_filename(keep, "domcaps.xml", NULL);
        g_assert_true(g_file_set_contents(a, caps, -1, NULL) &&
                      g_file_set_contents(b, dom, -1, NULL));
    }
}

static void test_vmm(void)
{
    if (!vmm)
        return g_test_skip("ruche-vmm was not given");
    make_host(true);
    manager.vmm = vmm;
    manager.cache_dir = g_strconcat(root, "/cache", NULL);
    int answered = 0;
    task_start(asks_vmm, &answered);
    run(asks_vmm, &answered); /* the second waits for the first's answer */
    g_assert_cmpint(answered, ==, 2);
    g_autofree char *dir = g_strconcat(manager.cache_dir, "/capabilities", NULL);
    g_autoptr(GDir) d = g_dir_open(dir, 0, NULL);
    g_assert_nonnull(g_dir_read_name(d));
    run(asks_documents, NULL);
}

int main(int argc, char **argv)
{
    signal(SIGPIPE,
           SIG_IGN); /* as ruched does: a program may end before it has read its questions */
    g_test_init(&argc, &argv, NULL);
    if (argc > 1)
        vmm = g_canonicalize_filename(argv[1], NULL);
    root = scratch_folder("node-test");
    g_setenv("NODE_SYSFS", root, true);
    g_test_add_func("/node/info", test_info);
    g_test_add_func("/node/maps", test_maps);
    g_test_add_func("/node/stats", test_stats);
    g_test_add_func("/node/pages", test_pages);
    g_test_add_func("/node/sets", test_sets);
    g_test_add_func("/node/sysinfo", test_sysinfo);
    g_test_add_func("/node/cpu/host", test_host_cpu);
    g_test_add_func("/node/cpu/models", test_models);
    g_test_add_func("/node/cpu/compare", test_compare);
    g_test_add_func("/node/cpu/baseline", test_baseline);
    g_test_add_func("/node/emulator/answer", test_answer);
    g_test_add_func("/node/emulator/none", test_no_emulator);
    g_test_add_func("/node/emulator/ours", test_vmm);
    return g_test_run();
}
