/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The option parser: key=value texts, and whole command lines with QEMU's odd forms. */
#include "vmm/options.h"

#include <string.h>

/* "k=v|k=v" of a parsed text, or "!sentence". */
static char *parsed(const char *text, const char *implied)
{
    g_autoptr(GError) error = NULL;
    auto_kv *l = kv_parse(text, implied, &error);
    if (!l)
        return g_strdup_printf("!%s", error->message);
    GString *s = g_string_new(NULL);
    for (size_t i = 0; i < l->count; i++)
        g_string_append_printf(s, "%s%s=%s", i ? "|" : "", l->pairs[i].key, l->pairs[i].value);
    return g_string_free(s, FALSE);
}

static const struct {
    const char *text, *implied, *want;
} kv_rows[] = {
    { "", "type", "" },
    { "q35", "type", "type=q35" },
    { "q35,accel=kvm:soft,usb=off", "type", "type=q35|accel=kvm:soft|usb=off" },
    { "type=q35", "type", "type=q35" },
    { "file=a,,b.img,if=none", "file", "file=a,b.img|if=none" },
    { "a,,b,if=none", "file", "file=a,b|if=none" },
    { "file=,,", "file", "file=," },
    { "file=a,,", "file", "file=a," },
    { "file=a,", "file", "file=a" },
    { "id=x,server,nowait", NULL, "id=x|server=on|wait=off" },
    { "socket,path=/x,server=on,nodelay", "backend",
      "backend=socket|path=/x|server=on|nodelay=on" },
    { "a=b=c", NULL, "a=b=c" },
    { "k=", NULL, "k=" },
    { "=v", NULL, "!'=v' lacks a name before '='" },
    { "user,hostfwd=tcp::2222-:22,hostfwd=tcp::80-:80", "type",
      "type=user|hostfwd=tcp::2222-:22|hostfwd=tcp::80-:80" },
    { "{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"a,b\"},\"read-only\":true}",
      NULL, "driver=raw|file.driver=file|file.filename=a,b|read-only=on" },
    { "{\"n\":12,\"l\":[\"x\",{\"y\":false}]}", NULL, "n=12|l.0=x|l.1.y=off" },
    { "{\"a\":[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]}", NULL,
      "!bad JSON: JSON text is nested too deep" },
    { "{\"a\":1", NULL, "!bad JSON: JSON text ends too early" },
    { "{\"a\":1} x", NULL, "!bad JSON: something stands behind the JSON text" },
};

static void test_key_values(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(kv_rows); i++) {
        g_autofree char *got = parsed(kv_rows[i].text, kv_rows[i].implied);
        g_assert_cmpstr(got, ==, kv_rows[i].want);
    }
}

static void test_key_value_bounds(void)
{
    g_autofree char *many = g_malloc0(KV_MAX_PAIRS * 3 + 16),
                    *long_key = g_strnfill(KV_MAX_KEY + 1, 'k');
    for (int i = 0; i < KV_MAX_PAIRS + 1; i++)
        strcat(many + (i ? i * 2 - 1 : 0), i ? ",a" : "a");
    g_autofree char *got = parsed(many, NULL);
    g_assert_true(g_str_has_prefix(got, "!more than 1024 properties"));
    g_autofree char *got2 = parsed(long_key, NULL);
    g_assert_true(
        g_str_has_prefix(got2, "!property name 'kkkkkkkkkkkkkkkkkkkk...' is longer than 127"));
}

/* ---- command lines ---- */

static bool parse_line(struct vm_options *o, const char *line, GError **error)
{
    g_auto(GStrv) argv = NULL;
    int argc;
    g_autofree char *whole = g_strconcat("ruche-vmm ", line, NULL);
    g_assert_true(g_shell_parse_argv(whole, &argc, &argv, NULL));
    vm_options_init(o);
    return vm_options_parse(o, argc, argv, error);
}

static const struct {
    const char *line, *want;
} bad_lines[] = {
    { "-foobarbaz", "-foobarbaz: unknown option" },
    { "-nographc", "-nographc: unknown option; did you mean '-nographic'?" },
    { "--kernl x", "--kernl: unknown option; did you mean '-kernel'?" },
    { "-m", "-m: an argument is missing: [size=]SIZE" },
    { "disk.img",
      "'disk.img' stands alone; to use it as a disk, say -drive file=disk.img,format=raw" },
    { "-m 12Q", "-m: '12Q' is no size for 'size'; use a number with K, M, G or T" },
    { "-m 0", "-m: 0 B of RAM is too little; 1M is the least" },
    { "-m size=1G,slot=3", "-m: unknown property 'slot'; did you mean 'slots'?" },
    { "-m 1G,slots=2,maxmem=4G",
      "-m: memory cannot be added while the machine runs; leave out 'slots' and 'maxmem'" },
    { "-smp 0", "-smp: 'cpus' must be a number from 1 to 4096, not '0'" },
    { "-smp 4,cores=3", "-smp: 1 sockets * 1 dies * 3 cores * 1 threads are not 4 CPUs" },
    { "-smp 8,maxcpus=4", "-smp: 'cpus' is 8, more than 'maxcpus', 4" },
    { "-uuid xyz", "-uuid: 'xyz' is not a UUID like 550e8400-e29b-41d4-a716-446655440000" },
    { "-accel tcg,thred=multi", "-accel: unknown property 'thred'; did you mean 'thread'?" },
    { "-accel soft,translate=yes", "-accel: 'translate' can be on, off or lockstep, not 'yes'" },
    { "-accel soft,tb-size=1T", "-accel: 'tb-size' is a size of at most 320 MiB, not '1T'" },
    { "-accel soft,perf-map=1", "-accel: 'perf-map' can be on or off, not '1'" },
    { "-drive file=a,if=ide",
      "-drive: there is no 'ide' disk interface here; use if=virtio, or if=none and a -device" },
    { "-drive file=a,fromat=raw", "-drive: unknown property 'fromat'; did you mean 'format'?" },
    { "-drive id=x,if=none", "-drive: 'file=' is missing: drives without a medium are not here" },
    { "-hda x", "-hda: there are no IDE disks here; use -drive file=x,format=raw,if=virtio" },
    { "-blockdev driver=qcow3,node-name=a", "-blockdev: unknown image driver 'qcow3'; did you mean 'qcow2'?" },
    { "-blockdev driver=raw,node-name=1a",
      "-blockdev: '1a' is not an id; use a letter, then letters, digits, '-', '.' and '_'" },
    { "-netdev user", "-netdev: 'id=' is missing" },
    { "-chardev stdio", "-chardev: 'id=' is missing" },
    { "-vga std", "-vga: there is no graphics card 'std' yet; only 'none' is possible" },
    { "-display gtk", "-display: there is no display 'gtk' yet; only 'none' is possible" },
    { "-action reboot=halt", "-action: 'reboot' must be one of reset, shutdown, not 'halt'" },
    { "-mon mode=control", "-mon: 'chardev=' is missing" },
    { "-d in_asn", "-d: unknown item 'in_asn'; did you mean 'in_asm'?" },
    { "-global foo", "-global: 'foo' is not DEVICE.PROPERTY=VALUE" },
    { "-fw_cfg name=opt/x", "-fw_cfg: item 'opt/x' needs either 'string=' or 'file='" },
    { "-rtc base=tomorrow",
      "-rtc: 'base' must be utc, localtime or a date like 2006-06-17T16:01:21, not 'tomorrow'" },
    { "-machine nosuch,help", "-machine: unknown board 'nosuch'" },
    { "-device nosuch,help", "-device: unknown device 'nosuch'" },
    { "-object iothread", "-object: 'id=' is missing" },
    { "-parallel /dev/lp0",
      "-parallel: there are no parallel ports here; only 'none' is possible" },
    { "-dtb x", "-dtb: x86 machines have no device tree" },
};

static void test_bad_lines(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(bad_lines); i++) {
        struct vm_options o;
        g_autoptr(GError) error = NULL;
        g_assert_false(parse_line(&o, bad_lines[i].line, &error));
        g_assert_cmpstr(error->message, ==, bad_lines[i].want);
        vm_options_done(&o);
    }
}

static void good(struct vm_options *o, const char *line)
{
    g_autoptr(GError) error = NULL;
    bool ok = parse_line(o, line, &error);
    g_assert_no_error(error);
    g_assert_true(ok);
}

static void test_machine_options(void)
{
    struct vm_options o;
    good(&o, "-machine q35,acpi=off --machine accel=soft -m 1G -smp 4,sockets=2 -name "
             "guest=a,,b,process=p "
             "-uuid 550e8400-e29b-41d4-a716-446655440000 -cpu max,-avx -kernel k -append 'a b' "
             "-rtc base=utc");
    g_assert_cmpstr(kv_get(o.machine, "type"), ==, "q35");
    g_assert_cmpstr(kv_get(o.machine, "acpi"), ==, "off");
    g_assert_cmpstr(kv_get(o.machine, "accel"), ==, "soft");
    g_assert_cmpuint(o.ram_bytes, ==, 1ULL << 30);
    g_assert_cmpuint(o.cpu_count, ==, 4);
    g_assert_cmpuint(o.topology.sockets, ==, 2);
    g_assert_cmpuint(o.topology.cores, ==, 2);
    g_assert_cmpstr(o.name, ==, "a,b");
    g_assert_cmpstr(o.process_name, ==, "p");
    g_assert_cmpstr(o.cpu, ==, "max,-avx");
    g_assert_cmpstr(o.append, ==, "a b");
    const uint8_t uuid[] = { 0x55, 0x0e, 0x84, 0x00, 0xe2, 0x9b, 0x41, 0xd4,
                             0xa7, 0x16, 0x44, 0x66, 0x55, 0x44, 0x00, 0x00 };
    g_assert_cmpmem(o.uuid, 16, uuid, 16);
    vm_options_done(&o);
}

static const struct {
    const char *smp;
    unsigned cpus, max, sockets, dies, cores, threads;
} smp_rows[] = {
    { "1", 1, 1, 1, 1, 1, 1 },
    { "6", 6, 6, 1, 1, 6, 1 },
    { "cpus=8,threads=2", 8, 8, 1, 1, 4, 2 },
    { "8,sockets=2,dies=2", 8, 8, 2, 2, 2, 1 },
    { "8,cores=2", 8, 8, 4, 1, 2, 1 },
    { "8,sockets=1,cores=4", 8, 8, 1, 1, 4, 2 },
    { "2,maxcpus=4", 2, 4, 1, 1, 4, 1 },
    { "sockets=2,cores=2,threads=2", 8, 8, 2, 1, 2, 2 },
};

static void test_smp(void)
{
    for (size_t i = 0; i < G_N_ELEMENTS(smp_rows); i++) {
        struct vm_options o;
        g_autofree char *line = g_strdup_printf("-smp %s", smp_rows[i].smp);
        good(&o, line);
        g_assert_cmpuint(o.cpu_count, ==, smp_rows[i].cpus);
        g_assert_cmpuint(o.max_cpus, ==, smp_rows[i].max);
        g_assert_cmpuint(o.topology.sockets, ==, smp_rows[i].sockets);
        g_assert_cmpuint(o.topology.dies, ==, smp_rows[i].dies);
        g_assert_cmpuint(o.topology.cores, ==, smp_rows[i].cores);
        g_assert_cmpuint(o.topology.threads, ==, smp_rows[i].threads);
        vm_options_done(&o);
    }
}

/* A line as libvirt writes them, and one as people type them. */
static void test_long_lines(void)
{
    struct vm_options o;
    good(&o,
         "-name guest=d,debug-threads=on -S -machine "
         "pc-q35-7.2,usb=off,vmport=off,dump-guest-core=off,"
         "memory-backend=pc.ram -accel kvm -cpu host,migratable=on -m size=1048576k -object "
         "'{\"qom-type\":\"memory-backend-ram\",\"id\":\"pc.ram\",\"size\":1073741824}' "
         "-overcommit mem-lock=off "
         "-smp 2,sockets=2,cores=1,threads=1 -uuid 550e8400-e29b-41d4-a716-446655440000 -display "
         "none "
         "-no-user-config -nodefaults -chardev socket,id=charmonitor,path=/x,server=on,wait=off "
         "-mon chardev=charmonitor,id=monitor,mode=control -rtc base=utc -no-shutdown -boot "
         "strict=on "
         "-device "
         "'{\"driver\":\"virtio-net-pci\",\"netdev\":\"hostnet0\",\"id\":\"net0\",\"addr\":\"0x3\"}"
         "' "
         "-msg timestamp=on -sandbox off");
    g_assert_true(o.start_paused && o.nodefaults);
    g_assert_cmpint(o.on_shutdown, ==, SHUTDOWN_PAUSE);
    g_assert_cmpuint(o.monitors->len, ==, 1);
    g_assert_cmpstr(kv_get(g_ptr_array_index(o.devices, 0), "netdev"), ==, "hostnet0");
    g_assert_cmpstr(kv_get(g_ptr_array_index(o.objects, 0), "size"), ==, "1073741824");
    vm_options_done(&o);
    good(&o, "-enable-kvm -m 2G -smp 2 -drive "
             "file=d.img,format=raw,if=virtio,cache=none,aio=native -nic "
             "user,hostfwd=tcp::2222-:22,model=virtio -nographic -no-reboot -global "
             "virtio-blk-pci.queue-size=64");
    g_assert_cmpstr(o.accel, ==, "kvm");
    g_assert_true(o.nographic);
    g_assert_cmpint(o.on_reboot, ==, REBOOT_SHUTDOWN);
    g_assert_cmpstr(kv_get(g_ptr_array_index(o.globals, 0), "property"), ==, "queue-size");
    vm_options_done(&o);
}

static void test_accel_order(void)
{
    struct vm_options o;
    good(&o, "-accel kvm -accel tcg,thread=multi");
    g_assert_cmpstr(o.accel, ==, "kvm:soft");
    vm_options_done(&o);
}

static void test_accel_settings(void)
{
    struct vm_options o;
    good(&o, "-accel soft");
    g_assert_cmpint(o.accel_config.translate, ==, CPU_TRANSLATE_ON);
    vm_options_done(&o);
    good(&o, "-accel soft,translate=off,tb-size=32,perf-map=on");
    g_assert_cmpint(o.accel_config.translate, ==, CPU_TRANSLATE_OFF);
    g_assert_cmpuint(o.accel_config.tb_bytes, ==, 32 * MIB);
    g_assert_true(o.accel_config.perf_map);
    vm_options_done(&o);
}

static void test_rows_have_names_once(void)
{
    g_autoptr(GHashTable) seen = g_hash_table_new(g_str_hash, g_str_equal);
    for (const struct option_row *const *r = option_rows(); *r; r++) {
        g_assert_true(g_hash_table_add(seen, (gpointer)(*r)->name));
        g_assert_nonnull((*r)->take);
    }
    g_assert_cmpuint(g_hash_table_size(seen), >, 60);
}

int main(int argc, char **argv)
{
    g_test_init(&argc, &argv, NULL);
    g_test_add_func("/options/key-values", test_key_values);
    g_test_add_func("/options/key-value-bounds", test_key_value_bounds);
    g_test_add_func("/options/bad-lines", test_bad_lines);
    g_test_add_func("/options/machine", test_machine_options);
    g_test_add_func("/options/smp", test_smp);
    g_test_add_func("/options/long-lines", test_long_lines);
    g_test_add_func("/options/accel-order", test_accel_order);
    g_test_add_func("/options/accel-settings", test_accel_settings);
    g_test_add_func("/options/rows", test_rows_have_names_once);
    return g_test_run();
}
