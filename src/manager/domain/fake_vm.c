/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "manager/domain/fake_vm.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

struct vm {
    struct domain *d;
    bool alive;
    const char *run_state;
    unsigned polls; /* until its stream is over */
    bool cancelled;
};

struct fake fake;

struct vm *vm_start(struct domain *d, bool incoming, struct domain_def **ret_live, GError **error)
{
    task_sleep_ms(2);
    fake.starts++;
    if (fake.fail_start) {
        ruche_error(error, MANAGER_ERR_MACHINE, "the machine did not want to");
        return NULL;
    }
    struct vm *v = g_new0(struct vm, 1);
    v->d = d;
    v->alive = true;
    v->run_state = "prelaunch";
    fake.live++;
    return v;
}

struct vm *vm_attach(struct domain *d, const struct xml_node *status, GError **error)
{
    task_sleep_ms(1);
    if (fake.gone_on_attach || !xml_is(status, "fake@alive", "yes")) {
        ruche_error(error, MANAGER_ERR_MACHINE, "no such process");
        return NULL;
    }
    struct vm *v = g_new0(struct vm, 1);
    v->d = d;
    v->alive = true;
    v->run_state = fake.attach_state;
    fake.live++;
    return v;
}

void vm_status(const struct vm *v, struct xml_node *status)
{
    xml_set(status, "fake@alive", v->alive ? "yes" : "no");
}

void vm_free(struct vm *v)
{
    if (!v)
        return;
    fake.live--;
    g_free(v);
}

bool vm_kill(struct vm *v, bool graceful, GError **error)
{
    task_sleep_ms(1);
    v->alive = false;
    fake.kills++;
    return true;
}

void vm_clean(struct domain *d)
{
    fake.cleans++;
}

void vm_signal(struct vm *v, int signal)
{
    v->alive = false;
    fake.signals++;
}

bool vm_cont(struct vm *v, GError **error)
{
    task_sleep_ms(1);
    if (fake.fail_cont)
        return ruche_error(error, MANAGER_ERR_MACHINE, "it does not go on");
    v->run_state = fake.full ? "io-error" : "running";
    domain_vm_event(v->d, VM_EV_RESUMED, 0, NULL, 0);
    if (fake.full)
        domain_vm_event(v->d, VM_EV_IO_ERROR, 0,
                        (const char *const[4]){"disk.raw", "virtio-disk0", "", "enospc"}, 1);
    return true;
}

bool vm_stop(struct vm *v, GError **error)
{
    while (fake.hang && v->alive)
        task_sleep_ms(5);
    if (!v->alive)
        return ruche_error(error, MANAGER_ERR_MACHINE, "the machine has ended");
    v->run_state = "paused";
    domain_vm_event(v->d, VM_EV_STOPPED, 0, NULL, 0);
    return true;
}

bool vm_powerdown(struct vm *v, GError **error)
{
    return true;
}

bool vm_reset(struct vm *v, GError **error)
{
    task_sleep_ms(1);
    fake.resets++;
    return v->alive;
}

bool vm_nmi(struct vm *v, GError **error)
{
    return true;
}

pid_t vm_pid(const struct vm *v)
{
    return 0;
}

const char *vm_run_state(const struct vm *v)
{
    return v->run_state;
}

bool vm_set_stats_period(struct vm *v, const struct xml_node *balloon, uint64_t seconds,
                         GError **error)
{
    return true;
}

bool vm_set_memory(struct vm *v, uint64_t kib, GError **error)
{
    return true;
}

bool vm_block_resize(struct vm *v, const char *disk, uint64_t bytes, GError **error)
{
    return true;
}

bool vm_set_params(struct vm *v, const char *which, const struct param_list *l, GError **error)
{
    return true;
}

bool vm_get_params(struct vm *v, const char *which, struct param_list *ret, GError **error)
{
    return true;
}

bool vm_pin(struct vm *v, enum domain_pin kind, unsigned number, const uint8_t *cpumap,
            unsigned len, GError **error)
{
    return true;
}

bool vm_iothread_add(struct vm *v, unsigned id, GError **error)
{
    return true;
}

bool vm_iothread_del(struct vm *v, unsigned id, GError **error)
{
    return true;
}

bool vm_iothread_set(struct vm *v, unsigned id, const struct param_list *l, GError **error)
{
    return true;
}

uint64_t vm_cpu_time_ns(struct vm *v)
{
    return 5;
}

uint64_t vm_memory_kib(const struct vm *v)
{
    return 65536;
}

int vm_vcpus(struct vm *v, struct domain_vcpu *ret, unsigned room)
{
    return 0;
}

bool vm_stats(struct vm *v, unsigned stats, struct param_list *ret, GError **error)
{
    task_sleep_ms(20); /* long enough for the machine to go meanwhile */
    param_ullong(ret, "cpu.time", 5);
    return v->alive || ruche_error(error, MANAGER_ERR_MACHINE, "the machine has ended");
}

bool vm_cpu_stats(struct vm *v, int cpu, struct param_list *ret, GError **error)
{
    return true;
}

bool vm_block_stats(struct vm *v, const char *disk, struct domain_block_stats *ret, GError **error)
{
    return true;
}

bool vm_block_info(struct vm *v, const char *disk, struct domain_block_info *ret, GError **error)
{
    *ret = (struct domain_block_info){.capacity = 1 << 20};
    return true;
}

bool vm_interface_stats(struct vm *v, const char *device, struct domain_interface_stats *ret,
                        GError **error)
{
    return true;
}

int vm_memory_stats(struct vm *v, struct domain_memory_stat *ret, unsigned room)
{
    return 0;
}

int vm_open_console(struct vm *v, const char *alias, bool force, bool channel, GError **error)
{
    return -1;
}

char *vm_agent_command(struct vm *v, const char *json, int timeout_s, GError **error)
{
    ruche_error(error, MANAGER_ERR_AGENT, "no agent");
    return NULL;
}

bool vm_agent_tell(struct vm *v, const char *json, GError **error)
{
    fake.told++;
    return !fake.no_agent || ruche_error(error, MANAGER_ERR_AGENT, "no agent");
}

GHashTable *vm_ports(struct vm *v)
{
    return g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);
}

bool vm_set_reboot(struct vm *v, bool destroy, GError **error)
{
    fake.reboot_destroys = destroy;
    return true;
}

bool vm_can_sleep(struct vm *v, GError **error)
{
    return !fake.no_sleep || ruche_error(error, MANAGER_ERR_CONFIG, "it cannot sleep");
}

bool vm_wakeup(struct vm *v, GError **error)
{
    domain_vm_event(v->d, VM_EV_WAKEUP, 0, NULL, 0);
    return true;
}

bool vm_block_threshold(struct vm *v, const char *disk, uint64_t bytes, GError **error)
{
    return true;
}

char *vm_monitor_command_fd(struct vm *v, const char *text, int fd, GError **error)
{
    return g_strdup("{}");
}

char *vm_native(struct domain_def *def, GError **error)
{
    return g_strdup(def->s.name);
}

char *vm_console_log_path(const char *domain_name)
{
    return g_build_filename(manager.log_dir, "console", NULL);
}

char *vm_log_path(const char *domain_name)
{
    return g_build_filename(manager.log_dir, "process", NULL);
}

char *vm_monitor_command(struct vm *v, const char *text, bool hmp, GError **error)
{
    return g_strdup("{}");
}

bool vm_device(struct vm *v, struct vm_change *c, GError **error)
{
    if (fake.plugs == FAKE_PLUGS_NOT)
        return ruche_error(error, MANAGER_ERR_CONFIG, "no hot plug");
    if (!c->before && !c->made(c->opaque, error))
        return false;
    task_sleep_ms(1);
    if (fake.plugs == FAKE_PLUGS_FAIL)
        return ruche_error(error, MANAGER_ERR_MACHINE, "the device broke");
    return true;
}

void vm_catch_up(struct vm *v)
{
    const char *const text[4] = {fake.lost};
    if (fake.lost)
        domain_vm_event(v->d, VM_EV_DEVICE_DELETED, 0, text, 0);
}

bool vm_detach(struct vm *v, struct xml_node *device, bool wait, bool *ret_gone, GError **error)
{
    return ruche_error(error, MANAGER_ERR_CONFIG, "no hot plug");
}

bool vm_set_vcpus(struct vm *v, unsigned count, GError **error)
{
    return ruche_error(error, MANAGER_ERR_CONFIG, "no hot plug");
}

bool vm_set_vcpu(struct vm *v, const uint8_t *map, unsigned len, bool on, GError **error)
{
    return ruche_error(error, MANAGER_ERR_CONFIG, "no hot plug");
}

unsigned vm_vcpu_count(struct vm *v)
{
    return 0;
}

struct domain_def *vm_fit_def(struct domain_def *d, GError **error)
{
    return domain_def_ref(d);
}

bool vm_check_def(struct domain_def *d, GError **error)
{
    return true;
}

/* ---- streams: what is written is a word, which is what can be read ---- */

bool vm_state_send(struct vm *v, int fd, uint64_t bytes_s, GError **error)
{
    if (write(fd, "state", 5) != 5)
        return ruche_error_errno(error, errno, "the file");
    v->polls = fake.stream_polls;
    return true;
}

bool vm_state_receive(struct vm *v, int fd, GError **error)
{
    char word[5];
    v->polls = fake.stream_polls;
    return (read(fd, word, sizeof(word)) == sizeof(word) && !memcmp(word, "state", sizeof(word))) ||
           ruche_error(error, MANAGER_ERR_MACHINE, "that is no state");
}

bool vm_state_speed(struct vm *v, uint64_t bytes_s, GError **error)
{
    return true;
}

bool vm_state_poll(struct vm *v, struct vm_progress *ret, GError **error)
{
    task_sleep_ms(1);
    if (!v->alive || fake.fail_stream || v->cancelled)
        return ruche_error(error, MANAGER_ERR_MACHINE, "the stream broke");
    *ret = (struct vm_progress){
        .state = v->polls ? VM_STREAM_RUNS : VM_STREAM_DONE, .total = 100, .remaining = v->polls};
    ret->done = ret->total - ret->remaining;
    v->polls -= v->polls > 0;
    return true;
}

bool vm_state_cancel(struct vm *v, GError **error)
{
    v->cancelled = true;
    return true;
}

bool vm_state_settle(struct vm *v, GError **error)
{
    v->cancelled = false;
    fake.settles++;
    return true;
}

bool vm_dump_memory(struct vm *v, int fd, const char *format, GError **error)
{
    return vm_state_send(v, fd, 0, error);
}

bool vm_peek_memory(struct vm *v, bool physical, uint64_t from, uint8_t *ret, size_t len,
                    GError **error)
{
    memset(ret, (int)from, len);
    return true;
}

/* ---- jobs on disks: one, which is as a test says ---- */

GArray *vm_block_jobs(struct vm *v, GError **error)
{
    task_sleep_ms(1);
    if (!v->alive) {
        ruche_error(error, MANAGER_ERR_MACHINE, "the machine has ended");
        return NULL;
    }
    GArray *list = g_array_new(FALSE, TRUE, sizeof(struct vm_block_job));
    if (fake.block_job.kind)
        g_array_append_val(list, fake.block_job);
    return list;
}

bool vm_block_job_do(struct vm *v, const struct vm_block_job *j, enum vm_block_job_verb verb,
                     uint64_t bytes_s, GError **error)
{
    struct vm_block_job *own = &fake.block_job;
    if (verb == BLOCK_JOB_DISMISS) {
        own->kind = BLOCK_JOB_NONE;
        return true;
    }
    if (fake.fail_block_job)
        return ruche_error(error, MANAGER_ERR_MACHINE, "the job does not listen");
    if (verb == BLOCK_JOB_SPEED)
        own->bytes_s = bytes_s;
    else
        own->over = !fake.slow_block_job;
    if (verb == BLOCK_JOB_CANCEL &&
        !own->ready) /* that is an end like any other once it is ready */
        g_strlcpy(own->why, "Operation canceled", sizeof(own->why));
    return true;
}

static bool begin_job(const struct vm_block_job *j, GError **error)
{
    if (fake.fail_block_job)
        return ruche_error(error, MANAGER_ERR_MACHINE, "no job today");
    fake.block_job = *j;
    return true;
}

bool vm_block_pull(struct vm *v, struct xml_node *disk, const struct vm_block_job *j,
                   GError **error)
{
    return begin_job(j, error);
}

bool vm_block_commit(struct vm *v, struct xml_node *disk, const struct vm_block_job *j,
                     GError **error)
{
    return begin_job(j, error);
}

bool vm_block_copy(struct vm *v, struct xml_node *disk, const struct vm_block_job *j,
                   const struct vm_block_copy *c, GError **error)
{
    return begin_job(j, error);
}

void vm_block_flush(struct vm *v, const char *target, unsigned image)
{
    task_sleep_ms(1);
}

void vm_block_forget(struct vm *v, const char *target, unsigned image)
{
    fake.forgotten++;
}

/* ---- migration: the other side is a descriptor that the test has ---- */

bool vm_migrate_prepare(struct vm *v, unsigned migrate_flags, GError **error)
{
    return true;
}

int vm_migrate_connect(const char *uri, GError **error)
{
    return dup(fake.migrate_fd);
}

int vm_migrate_listen(const char *uri, const char *address, char **ret_uri, char **ret_path,
                      GError **error)
{
    *ret_uri = g_strdup("tcp:fake:1");
    return dup(fake.migrate_fd);
}

bool vm_migrate_set_downtime(struct vm *v, uint64_t ms, GError **error)
{
    return true;
}

bool vm_migrate_get_downtime(struct vm *v, uint64_t *ret, GError **error)
{
    *ret = 300;
    return true;
}

bool vm_migrate_set_cache(struct vm *v, uint64_t bytes, GError **error)
{
    return true;
}

bool vm_migrate_get_cache(struct vm *v, uint64_t *ret, GError **error)
{
    *ret = 0;
    return true;
}
