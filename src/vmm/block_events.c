/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What happens to disks on their own threads, told to QMP: failed requests, corrupt images,
 * thresholds.
 *
 * Thread    The hooks are called on any thread; the main thread sends.
 * Bounds    EVENTS_MAX wait to be sent; a guest that provokes more than the main thread takes loses
 *           events, never memory.
 */
#include "vmm/block.h"

#include "image/driver.h"

#include <errno.h>
#include <string.h>

#define EVENTS_MAX 256

static struct vmm *machine_of_process; /* hooks have no opaque: a process is one machine */
static unsigned waiting;

struct event {
    const char *name;
    JsonObject *data;
};

static gboolean send(gpointer opaque)
{
    struct event *e = opaque;
    struct vmm *v = machine_of_process;
    __atomic_sub_fetch(&waiting, 1, __ATOMIC_RELAXED);
    if (v && v->qmp)
        qmp_event(v->qmp, e->name, e->data);
    else
        json_object_unref(e->data);
    g_free(e);
    return G_SOURCE_REMOVE;
}

/* Takes data. */
static void post(const char *name, JsonObject *data)
{
    if (__atomic_add_fetch(&waiting, 1, __ATOMIC_RELAXED) > EVENTS_MAX) {
        __atomic_sub_fetch(&waiting, 1, __ATOMIC_RELAXED);
        json_object_unref(data);
        return;
    }
    struct event *e = g_new(struct event, 1);
    *e = (struct event){ .name = name, .data = data };
    g_idle_add_full(G_PRIORITY_DEFAULT, send, e, NULL);
}

static void on_io_error(const struct image *i, bool write, enum image_on_error policy, bool stop,
                        int err)
{
    struct vmm *v = machine_of_process;
    const struct node *n = image_node(i);
    JsonObject *o = json_object_new();
    const char *action = stop ? "stop" : policy == IMAGE_ERROR_IGNORE ? "ignore" : "report";
    json_object_set_string_member(o, "device", image_name(i));
    if (n)
        json_object_set_string_member(o, "node-name", node_name(n));
    json_object_set_string_member(o, "operation", write ? "write" : "read");
    json_object_set_string_member(o, "action", action);
    json_object_set_boolean_member(o, "nospace", err == -ENOSPC);
    json_object_set_string_member(o, "reason", g_strerror(-err));
    post("BLOCK_IO_ERROR", o);
    if (stop && v && v->machine)
        machine_request(v->machine, MACHINE_REQ_IO_ERROR, 0);
}

static void on_corrupt(const struct node *n, const char *sentence, int64_t offset, uint64_t size,
                       bool fatal, void *opaque)
{
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "device", "");
    json_object_set_string_member(o, "node-name", node_name(n));
    json_object_set_string_member(o, "msg", sentence);
    if (offset >= 0)
        json_object_set_int_member(o, "offset", offset);
    if (size)
        json_object_set_int_member(o, "size", (gint64)size);
    json_object_set_boolean_member(o, "fatal", fatal);
    post("BLOCK_IMAGE_CORRUPTED", o);
}

/* Once: a threshold that was passed is none any more. */
static void on_threshold(struct node *n, uint64_t exceeded)
{
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "node-name", node_name(n));
    json_object_set_int_member(o, "amount-exceeded", (gint64)exceeded);
    json_object_set_int_member(o, "write-threshold", (gint64)n->write_threshold);
    post("BLOCK_WRITE_THRESHOLD", o);
}

void block_events_init(struct vmm *v)
{
    machine_of_process = v;
    image_on_error_event(on_io_error);
    node_on_corrupt(on_corrupt, NULL);
    node_on_write_threshold(on_threshold);
}

void block_events_done(void)
{
    machine_of_process = NULL;
}

/* ---- rows for the schema ---- */

static const struct qmp_arg job_data[] = {
    { "type", QMP_STRING, false, "stream, commit, mirror, backup" },
    { "device", QMP_STRING, false, "The job" },
    { "len", QMP_INT, false, "Bytes in all" },
    { "offset", QMP_INT, false, "Bytes done" },
    { "speed", QMP_INT, false, "Its limit" },
    { "error", QMP_STRING, true, "Why it failed" },
    { 0 },
};
static const struct qmp_arg pending_data[] = {
    { "type", QMP_STRING, false, "stream, commit, mirror, backup" },
    { "id", QMP_STRING, false, "The job" },
    { 0 },
};
static const struct qmp_arg job_error_data[] = {
    { "device", QMP_STRING, false, "The job" },
    { "operation", QMP_STRING, false, "read, write" },
    { "action", QMP_STRING, false, "report, ignore, stop" },
    { 0 },
};
static const struct qmp_arg status_data[] = {
    { "id", QMP_STRING, false, "The job" },
    { "status", QMP_STRING, false, "created, running, ... null" },
    { 0 },
};
static const struct qmp_arg corrupt_data[] = {
    { "device", QMP_STRING, false, "The disk" },
    { "node-name", QMP_STRING, true, "The node" },
    { "msg", QMP_STRING, false, "A sentence for people" },
    { "offset", QMP_INT, true, "Where" },
    { "size", QMP_INT, true, "How much" },
    { "fatal", QMP_BOOL, false, "It is read-only from now on" },
    { 0 },
};
static const struct qmp_arg threshold_data[] = {
    { "node-name", QMP_STRING, false, "The node" },
    { "amount-exceeded", QMP_INT, false, "Bytes past it" },
    { "write-threshold", QMP_INT, false, "Where it was" },
    { 0 },
};
static const struct qmp_arg export_data[] = {
    { "id", QMP_STRING, false, "The export" },
    { 0 },
};

#define EVENT(symbol, name_, summary_, data_)                                                      \
    static const struct qmp_event_type symbol = { .name = name_,                                   \
                                                  .summary = summary_,                             \
                                                  .data = data_ };                                 \
    QMP_EVENT(symbol)

EVENT(completed_event, "BLOCK_JOB_COMPLETED", "A job on disks ended", job_data);
EVENT(cancelled_event, "BLOCK_JOB_CANCELLED", "A job on disks was cancelled", job_data);
EVENT(ready_event, "BLOCK_JOB_READY", "A mirror can be completed", job_data);
EVENT(pending_event, "BLOCK_JOB_PENDING", "A job waits to be finalized", pending_data);
EVENT(job_error_event, "BLOCK_JOB_ERROR", "A job's request failed", job_error_data);
EVENT(status_event, "JOB_STATUS_CHANGE", "A job went to another state", status_data);
EVENT(corrupted_event, "BLOCK_IMAGE_CORRUPTED", "An image is broken", corrupt_data);
EVENT(threshold_event, "BLOCK_WRITE_THRESHOLD", "A node was written past its threshold",
      threshold_data);
EVENT(export_event, "BLOCK_EXPORT_DELETED", "An export is gone", export_data);
