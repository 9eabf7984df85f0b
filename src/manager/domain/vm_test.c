/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Machines of the real ruche-vmm (and of QEMU, where it is installed): started, asked, lost, found
 * again, ended.
 *
 * Arguments: ruche-vmm, ruche-img, a kernel that runs for ever.
 */
#include "base/scratch.h"
#include "manager/domain/vm_internal.h"

#include "manager/uuid.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

static const char *program, *image_tool, *kernel;
static char *scratch;

/* ---- the rest of the manager, as far as machines need it ---- */

static struct {
    unsigned count[VM_EV_TRAY + 1];
    int gone_detail;
} seen;

void domain_monitor_event(struct domain *d, const char *name, JsonObject *data, int64_t at_us)
{
}

void domain_threshold_passed(struct domain *d, const char *disk, const char *path,
                             uint64_t threshold, uint64_t excess)
{
}

void domain_vm_event(struct domain *d, enum vm_event event, int detail, const char *const text[4],
                     uint64_t number)
{
    g_assert_null(fiber_self());
    seen.count[event]++;
    if (event == VM_EV_GONE)
        seen.gone_detail = detail;
}

const struct domain_summary *domain_summary(const struct domain *d)
{
    return &(d->live ? d->live : d->def)->s;
}

/* ---- what a test has ---- */

static struct domain *make_domain(const char *emulator, const char *devices)
{
    static int number;
    g_autoptr(GError) error = NULL;
    struct domain *d = g_new0(struct domain, 1);
    g_autofree char *text = g_strdup_printf(
        "<domain type='qemu'><name>m%d</name><memory unit='MiB'>64</memory><vcpu>2</vcpu>"
        "<os><type arch='x86_64' machine='q35'>hvm</type><kernel>%s</kernel><cmdline>a,b "
        "c=1</cmdline></os>"
        "<features><acpi/></features><devices><emulator>%s</emulator>%s</devices></domain>",
        ++number, kernel, emulator, devices);
    d->live = domain_def_parse(text, strlen(text), 0, &error);
    g_assert_no_error(error);
    d->id = number;
    return d;
}

static void free_domain(struct domain *d)
{
    domain_def_unref(d->live);
    g_free(d);
}

struct run {
    void (*fn)(struct domain *d);
    struct domain *d;
    bool over;
};

static void task(void *opaque)
{
    struct run *r = opaque;
    r->fn(r->d);
    r->over = true;
}

static gboolean too_late(gpointer opaque)
{
    g_error("the test did not come to its end in time");
    return G_SOURCE_REMOVE;
}

static void in_task(void (*fn)(struct domain *d), struct domain *d)
{
    struct run r = {.fn = fn, .d = d};
    guint watchdog = g_timeout_add_seconds(60, too_late, NULL);
    memset(&seen, 0, sizeof(seen));
    task_start(task, &r);
    while (!r.over)
        g_main_context_iteration(NULL, TRUE);
    g_source_remove(watchdog);
}

static struct vm *start(struct domain *d)
{
    g_autoptr(GError) error = NULL;
    struct domain_def *live = NULL;
    struct vm *v = vm_start(d, false, &live, &error);
    g_assert_no_error(error);
    g_assert_nonnull(v);
    domain_def_unref(d->live);
    d->live = live;
    d->vm = v;
    return v;
}

static void end(struct domain *d)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *dir = g_strdup(d->vm->dir);
    pid_t pid = d->vm->pid;
    g_assert_true(vm_kill(d->vm, false, &error));
    g_assert_no_error(error);
    g_clear_pointer(&d->vm, vm_free);
    g_assert_cmpuint(vm_process_start(pid), ==, 0);
    g_assert_false(g_file_test(dir, G_FILE_TEST_EXISTS)); /* nothing is left */
}

static void wait_for(unsigned *count)
{
    for (int i = 0; i < 1000 && !*count; i++)
        task_sleep_ms(10);
    g_assert_cmpuint(*count, >, 0);
}

#define CONSOLE                                                                                    \
    "<serial type='pty'><target type='isa-serial' port='0'/></serial><console type='pty'/>"

/* ---- tests ---- */

static void life(struct domain *d)
{
    g_autoptr(GError) error = NULL;
    struct vm *v = start(d);
    g_assert_cmpstr(vm_run_state(v), ==, "prelaunch");
    g_assert_cmpuint(v->vcpus->len, ==, 2);
    g_assert_cmpint(getsid(v->pid), !=, getsid(0)); /* nobody's child */
    g_assert_true(vm_cont(v, &error));
    wait_for(&seen.count[VM_EV_RESUMED]);
    g_assert_true(vm_stop(v, &error));
    wait_for(&seen.count[VM_EV_STOPPED]);
    g_assert_true(vm_reset(v, &error));
    g_assert_true(vm_cont(v, &error));
    g_assert_no_error(error);
    task_sleep_ms(100);
    struct domain_vcpu cpus[4];
    g_assert_cmpint(vm_vcpus(v, cpus, G_N_ELEMENTS(cpus)), ==, 2);
    g_assert_cmpuint(vm_cpu_time_ns(v), >, 0);
    end(d);
    g_assert_cmpuint(seen.count[VM_EV_GONE], ==, 0); /* who ends it is not told */
}

static void test_life(void)
{
    struct domain *d = make_domain(program, CONSOLE);
    in_task(life, d);
    free_domain(d);
}

static void killed(struct domain *d)
{
    struct vm *v = start(d);
    g_assert_true(vm_cont(v, NULL));
    g_assert_cmpint(kill(v->pid, SIGKILL), ==, 0);
    wait_for(&seen.count[VM_EV_GONE]);
    g_assert_cmpint(seen.gone_detail, ==, 1);
    g_autoptr(GError) error = NULL;
    g_assert_false(vm_stop(v, &error));
    g_assert_error(error, RUCHE_ERROR, MANAGER_ERR_MACHINE);
    end(d);
}

static void test_killed(void)
{
    struct domain *d = make_domain(program, CONSOLE);
    in_task(killed, d);
    free_domain(d);
}

static void found_again(struct domain *d)
{
    g_autoptr(GError) error = NULL;
    struct vm *v = start(d);
    pid_t pid = v->pid;
    g_assert_true(vm_cont(v, &error));
    struct xml_node *status = xml_new("domstatus");
    vm_status(v, status);
    vm_free(v);
    d->vm = v = vm_attach(d, status, &error);
    g_assert_no_error(error);
    g_assert_cmpint(vm_pid(v), ==, pid);
    g_assert_cmpstr(vm_run_state(v), ==, "running");
    g_assert_cmpuint(v->vcpus->len, ==, 2);
    g_assert_nonnull(vm_ask(v, VM_ASK_BALLOON_STATS, &error)); /* it knows the balloon again */
    g_assert_true(vm_stop(v, &error));
    end(d);
    g_assert_null(vm_attach(d, status, &error)); /* gone: the number may be another's */
    g_assert_error(error, RUCHE_ERROR, MANAGER_ERR_MACHINE);
    xml_free(status);
}

static void test_found_again(void)
{
    struct domain *d = make_domain(
        program, CONSOLE "<memballoon model='virtio'><alias name='ua-mem'/></memballoon>");
    in_task(found_again, d);
    free_domain(d);
}

/* A start that was cut off: the process is found by the file it keeps locked. */
static void cleaned(struct domain *d)
{
    struct vm *v = start(d);
    pid_t pid = v->pid;
    g_autofree char *dir = g_strdup(v->dir);
    g_clear_pointer(&d->vm, vm_free);
    g_assert_cmpuint(vm_process_start(pid), >, 0);
    vm_clean(d);
    g_assert_cmpuint(vm_process_start(pid), ==, 0);
    g_assert_false(g_file_test(dir, G_FILE_TEST_EXISTS));
    vm_clean(d); /* nothing there is fine */
}

static void test_cleaned(void)
{
    struct domain *d = make_domain(program, CONSOLE);
    in_task(cleaned, d);
    free_domain(d);
}

static void fails(struct domain *d)
{
    g_autoptr(GError) error = NULL;
    struct domain_def *live = NULL;
    g_assert_null(vm_start(d, false, &live, &error));
    g_assert_nonnull(error);
    g_assert_null(live);
    g_assert_nonnull(strstr(error->message, d->live->s.name));
}

/* The emulator's own sentence is in the error. */
static void test_fails(void)
{
    const char *good = kernel;
    g_autofree char *bad = g_build_filename(scratch, "not-a-kernel", NULL);
    g_file_set_contents(bad, "hello", -1, NULL);
    kernel = bad;
    struct domain *d = make_domain(program, CONSOLE);
    kernel = good;
    in_task(fails, d);
    free_domain(d);
}

static void console(struct domain *d)
{
    g_autoptr(GError) error = NULL;
    char c;
    struct vm *v = start(d);
    g_assert_cmpuint(d->live->s.chardev_count, >=, 1);
    g_assert_true(g_str_has_prefix(d->live->s.chardevs[0].path, "/dev/pts/"));
    g_assert_nonnull(strstr(d->live->text, "<console type='pty' tty='/dev/pts/"));
    int a = vm_open_console(v, NULL, false, false, &error);
    g_assert_no_error(error);
    g_assert_cmpint(a, >=, 0);
    g_assert_cmpint(vm_open_console(v, "serial0", false, false, &error), ==,
                    -1); /* one at a time */
    g_clear_error(&error);
    int b = vm_open_console(v, "serial0", true, false, &error);
    g_assert_cmpint(b, >=, 0);
    g_assert_cmpint(recv(a, &c, 1, 0), ==, 0); /* the first one's is over */
    close(a);
    close(b);
    g_assert_cmpint(vm_open_console(v, "nothing", false, false, &error), ==, -1);
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_INVALID);
    end(d);
}

static void test_console(void)
{
    struct domain *d = make_domain(program, CONSOLE);
    in_task(console, d);
    free_domain(d);
}

static uint64_t find_u64(const struct param_list *l, const char *name)
{
    const struct param *p = param_find(l, name);
    g_assert_nonnull(p);
    return p->u;
}

static void disks(struct domain *d)
{
    g_autoptr(GError) error = NULL;
    struct domain_block_stats s;
    struct domain_block_info info;
    struct param_list l = {0};
    struct vm *v = start(d);
    g_assert_true(vm_block_stats(v, "vda", &s, &error));
    g_assert_cmpint(s.wr_req, ==, 0);
    g_assert_true(vm_block_info(v, "vda", &info, &error));
    g_assert_cmpuint(info.capacity, ==, 8 << 20);
    g_assert_true(vm_block_resize(v, "vda", 16 << 20, &error));
    g_assert_true(vm_block_info(v, "vda", &info, &error));
    g_assert_cmpuint(info.capacity, ==, 16 << 20);
    g_assert_true(vm_stats(v, ~0u, &l, &error));
    g_assert_no_error(error);
    g_assert_cmpuint(find_u64(&l, "block.count"), ==, 2);
    g_assert_cmpuint(find_u64(&l, "block.1.capacity"), ==, 4 << 20);
    g_assert_cmpuint(find_u64(&l, "vcpu.current"), ==, 2);
    g_assert_cmpuint(find_u64(&l, "net.count"), ==, 1);
    g_assert_cmpuint(find_u64(&l, "balloon.maximum"), ==, 65536);
    param_list_done(&l);
    param_ullong(&l, "total_iops_sec", 100);
    g_assert_true(vm_set_params(v, "blockio:vda", &l, &error));
    param_list_done(&l);
    g_assert_false(vm_block_stats(v, "vdz", &s, &error));
    g_assert_error(error, RUCHE_ERROR, MANAGER_ERR_ARGUMENT);
    end(d);
}

static void make_image(const char *path, const char *format, const char *size, const char *backing)
{
    const char *argv[] = {image_tool, "create", "-q", "-f", format, path,
                          size,       NULL,     NULL, NULL, NULL,   NULL};
    if (backing)
        memcpy(&argv[6], (const char *[]){"-b", backing, "-F", "qcow2"}, 4 * sizeof(char *));
    int status = 1;
    g_assert_true(g_spawn_sync(NULL, (char **)argv, NULL, G_SPAWN_DEFAULT, NULL, NULL, NULL, NULL,
                               &status, NULL));
    g_assert_cmpint(status, ==, 0);
}

static char *disks_xml(void)
{
    g_autofree char *base = g_build_filename(scratch, "base.qcow2", NULL),
                    *top = g_build_filename(scratch, "top.qcow2", NULL),
                    *raw = g_build_filename(scratch, "raw.img", NULL);
    make_image(base, "qcow2", "8M", NULL);
    make_image(top, "qcow2", NULL, base);
    make_image(raw, "raw", "4M", NULL);
    return g_strdup_printf(
        CONSOLE
        "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>"
        "<serial type='file'><source path='%s/serial.txt'/></serial><rng model='virtio'><backend "
        "model='random'>"
        "/dev/urandom</backend></rng><panic model='isa'/><disk type='file' device='disk'><driver "
        "name='qemu' type='qcow2' cache='none'/><source file='%s'/>"
        "<target dev='vda' bus='virtio'/></disk><disk type='file' device='disk'><driver "
        "name='qemu' type='raw'/>"
        "<source file='%s'/><target dev='vdb' bus='virtio'/><readonly/></disk>"
        "<interface type='user'><mac address='52:54:00:00:00:01'/><model "
        "type='virtio'/></interface>",
        scratch, top, raw);
}

static void test_disks(void)
{
    g_autofree char *xml = disks_xml();
    struct domain *d = make_domain(program, xml);
    in_task(disks, d);
    free_domain(d);
}

/* The same with QEMU, by the same code. */
static void test_qemu(gconstpointer fn)
{
    g_autofree char *qemu = g_find_program_in_path("qemu-system-x86_64"), *xml = disks_xml();
    if (!qemu) {
        g_test_skip("qemu-system-x86_64 is not installed");
        return;
    }
    struct domain *d = make_domain(qemu, xml);
    in_task(*(void (*const *)(struct domain *))fn, d);
    free_domain(d);
}

/* ---- what an emulator lacks ---- */

static const struct {
    const char *device, *words[3];
} lacking[] = {
    {"<disk type='file' device='disk'><source file='/x'/><target dev='sda' bus='scsi'/></disk>",
     {"'sda'", "'scsi'", "'virtio'"}},
    {"<interface type='user'><model type='e1000'/></interface>",
     {"interface", "'e1000'", "'virtio'"}},
    {"<graphics type='vnc' port='-1'/>", {"graphics", "'vnc'", "ruche-vmm"}},
    {"<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='1' slot='0' "
     "function='0'/></source></hostdev>",
     {"<hostdev>", "not possible", "yet"}},
    {"<filesystem type='mount'><source dir='/a'/><target dir='b'/></filesystem>",
     {"<filesystem>", "disk", "yet"}},
};

static void check_lacking(struct domain *d)
{
    for (size_t i = 0; i < G_N_ELEMENTS(lacking); i++) {
        g_autoptr(GError) error = NULL;
        struct domain *own = make_domain(program, lacking[i].device);
        g_assert_false(vm_check_def(own->live, &error));
        g_assert_error(error, RUCHE_ERROR, MANAGER_ERR_CONFIG);
        for (size_t w = 0; w < G_N_ELEMENTS(lacking[i].words); w++)
            if (!strstr(error->message, lacking[i].words[w]))
                g_error("'%s' does not say %s", error->message, lacking[i].words[w]);
        free_domain(own);
    }
    g_assert_true(vm_check_def(d->live, NULL));
}

/* A log that has grown too large begins anew; the process goes on writing at its end. */
static void test_log(void)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = vm_log_path("large");
    struct stat st;
    int fd = vm_log_open("large", &error);
    g_assert_no_error(error);
    g_assert_cmpint(ftruncate(fd, 3 << 20), ==, 0);
    vm_log_bound("large");
    static const char said[] = "x: char device redirected to /dev/pts/0 (label a)\nlast words\n";
    g_assert_cmpint(write(fd, said, sizeof(said) - 1), ==, sizeof(said) - 1);
    g_assert_cmpint(stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, sizeof(said) - 1);
    g_autofree char *tail = vm_log_tail("large", 0);
    g_assert_cmpstr(tail, ==, "last words");
    close(fd);
}

static void test_lacking(void)
{
    struct domain *d = make_domain(program, CONSOLE);
    in_task(check_lacking, d);
    free_domain(d);
}

/* ---- the guest agent ---- */

/* One that has an old answer on its tongue; the second client gets none. */
static gpointer serve_agent(gpointer opaque)
{
    int listener = GPOINTER_TO_INT(opaque), fd = accept(listener, NULL, NULL);
    static const char old[] = "{\"return\":99}\nnoise\n{\"return\":{\"left\":\"over\"}}\n";
    char line[512];
    gint64 id = 0;
    ssize_t n = recv(fd, line, sizeof(line) - 1, 0);
    g_assert_cmpint(n, >, 0);
    line[n] = '\0';
    g_assert_cmpint(line[0], ==, (char)0xff);
    g_assert_cmpint(sscanf(strstr(line, "\"id\":"), "\"id\":%" G_GINT64_FORMAT, &id), ==, 1);
    g_autofree char *sync = g_strdup_printf("%s{\"return\":%" G_GINT64_FORMAT "}\n", old, id);
    g_assert_cmpint(send(fd, sync, strlen(sync), 0), ==, strlen(sync));
    g_assert_cmpint(recv(fd, line, sizeof(line), 0), >, 0);
    g_assert_cmpint(send(fd, "{\"return\":{}}\n", 14, 0), ==, 14);
    close(fd);
    return NULL;
}

static void talk_to_agent(struct domain *d)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *path = g_build_filename(scratch, "agent.sock", NULL);
    int listener = vm_listen(path, &error);
    g_assert_no_error(error);
    struct vm *v = vm_new(d);
    GThread *agent = g_thread_new("agent", serve_agent, GINT_TO_POINTER(listener));
    g_autofree char *answer = vm_agent_command(v, "{\"execute\":\"guest-ping\"}", 5, &error);
    g_assert_no_error(error);
    g_assert_cmpstr(answer, ==, "{\"return\":{}}");
    g_thread_join(agent);
    g_assert_null(
        vm_agent_command(v, "{\"execute\":\"guest-ping\"}", 1, &error)); /* nobody accepts */
    g_assert_error(error, RUCHE_ERROR, MANAGER_ERR_AGENT);
    g_clear_error(&error);
    g_assert_null(vm_agent_command(v, "{\"execute\"", 1, &error));
    g_assert_error(error, RUCHE_ERROR, RUCHE_ERR_INVALID);
    close(listener);
    vm_free(v);
}

static void test_agent(void)
{
    g_autofree char *channel =
        g_strdup_printf("<channel type='unix'><source mode='bind' path='%s/agent.sock'/>"
                        "<target type='virtio' name='org.qemu.guest_agent.0'/></channel>",
                        scratch);
    struct domain *d = make_domain(program, channel);
    in_task(talk_to_agent, d);
    free_domain(d);
}

static void replace(char **setting, char *value)
{
    g_free(*setting);
    *setting = value;
}

int main(int argc, char **argv)
{
    static void (*const with_qemu[])(struct domain *) = {life, killed, found_again, disks};
    static const char *const names[] = {"life", "killed", "found-again", "disks"};
    g_test_init(&argc, &argv, NULL);
    if (argc < 4)
        return 2;
    program = g_canonicalize_filename(argv[1], NULL);
    image_tool = g_canonicalize_filename(argv[2], NULL);
    kernel = g_canonicalize_filename(argv[3], NULL);
    scratch = scratch_folder("vm-test");
    manager_config_init(true);
    replace(&manager.vmm, g_strdup(program));
    replace(&manager.img, g_strdup(image_tool));
    replace(&manager.runtime_dir, g_build_filename(scratch, "run", NULL));
    replace(&manager.log_dir, g_build_filename(scratch, "log", NULL));
    replace(&manager.cache_dir, g_build_filename(scratch, "cache", NULL));
    g_test_add_func("/vm/life", test_life);
    g_test_add_func("/vm/killed", test_killed);
    g_test_add_func("/vm/found-again", test_found_again);
    g_test_add_func("/vm/cleaned", test_cleaned);
    g_test_add_func("/vm/fails", test_fails);
    g_test_add_func("/vm/console", test_console);
    g_test_add_func("/vm/disks", test_disks);
    g_test_add_func("/vm/log", test_log);
    g_test_add_func("/vm/lacking", test_lacking);
    g_test_add_func("/vm/agent", test_agent);
    for (size_t i = 0; i < G_N_ELEMENTS(with_qemu); i++) {
        g_autofree char *path = g_strconcat("/vm/qemu/", names[i], NULL);
        g_test_add_data_func(path, &with_qemu[i], test_qemu);
    }
    return g_test_run();
}
