/* SPDX-License-Identifier: GPL-2.0-or-later */
/* QMP: jobs: queries, commands on them, and their events; in the two spellings that QEMU has, job-*
 * and block-job-*.
 */
#include "vmm/block.h"

#include "base/log.h"
#include "qmp/errors.h"

#include <string.h>

/* ---- events ---- */

static JsonObject *block_job_data(const struct job_info *i)
{
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "type", job_kind_words[i->kind]);
    json_object_set_string_member(o, "device", i->id);
    json_object_set_int_member(o, "len", i->total);
    json_object_set_int_member(o, "offset", i->done);
    json_object_set_int_member(o, "speed", i->speed);
    return o;
}

static void send_end(struct vmm *v, const struct job_info *i)
{
    JsonObject *o = block_job_data(i);
    if (i->error)
        json_object_set_string_member(o, "error", i->error);
    qmp_event(v->qmp, i->cancelled ? "BLOCK_JOB_CANCELLED" : "BLOCK_JOB_COMPLETED", o);
}

static void send_pending(struct vmm *v, const struct job_info *i)
{
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "type", job_kind_words[i->kind]);
    json_object_set_string_member(o, "id", i->id);
    qmp_event(v->qmp, "BLOCK_JOB_PENDING", o);
}

static void on_status(struct job *j, void *opaque)
{
    struct vmm *v = opaque;
    struct job_info i;
    job_get_info(j, &i);
    if (job_is_block_job(j) && i.status == JOB_CONCLUDED)
        send_end(v, &i);
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "id", i.id);
    json_object_set_string_member(o, "status", job_status_words[i.status]);
    qmp_event(v->qmp, "JOB_STATUS_CHANGE", o);
    if (job_is_block_job(j) && i.status == JOB_READY)
        qmp_event(v->qmp, "BLOCK_JOB_READY", block_job_data(&i));
    if (job_is_block_job(j) && i.status == JOB_PENDING && !i.auto_finalize)
        send_pending(v, &i);
}

static void on_io_error(struct job *j, bool write, enum job_on_error action, void *opaque)
{
    static const char *const actions[] = { [JOB_ERROR_REPORT] = "report",
                                           [JOB_ERROR_IGNORE] = "ignore",
                                           [JOB_ERROR_ENOSPC] = "report",
                                           [JOB_ERROR_STOP] = "stop" };
    struct vmm *v = opaque;
    JsonObject *o = json_object_new();
    json_object_set_string_member(o, "device", job_id(j));
    json_object_set_string_member(o, "operation", write ? "write" : "read");
    json_object_set_string_member(o, "action", actions[action]);
    qmp_event(v->qmp, "BLOCK_JOB_ERROR", o);
}

const struct job_listener block_job_listener = { .status = on_status, .io_error = on_io_error };

/* ---- what every job's command has ---- */

static bool take_policy(JsonObject *args, const char *name, enum job_on_error *ret, GError **error)
{
    static const enum job_on_error policies[] = { JOB_ERROR_REPORT, JOB_ERROR_IGNORE,
                                                  JOB_ERROR_STOP, JOB_ERROR_ENOSPC,
                                                  JOB_ERROR_REPORT };
    int word = 0;
    if (!arg_word(args, name, on_error_words, &word, error))
        return false;
    if (json_object_has_member(args, name))
        *ret = policies[word];
    return true;
}

bool block_job_common(struct vmm *v, JsonObject *args, struct node *n, struct job_common *ret,
                      GError **error)
{
    *ret = (struct job_common){ .auto_finalize = arg_bool(args, "auto-finalize", true),
                                .auto_dismiss = arg_bool(args, "auto-dismiss", true),
                                .id = arg_string(args, "job-id") };
    if (!ret->id && *block_device_name(v, n))
        ret->id = block_device_name(v, n);
    if (!arg_u64(args, "speed", INT64_MAX, &ret->speed, error) ||
        !take_policy(args, "on-error", &ret->on_error_source, error))
        return false;
    ret->on_error_target = ret->on_error_source;
    return take_policy(args, "on-source-error", &ret->on_error_source, error) &&
           take_policy(args, "on-target-error", &ret->on_error_target, error);
}

/* ---- queries ---- */

static JsonNode *query_jobs(void *opaque, JsonObject *args, GError **error)
{
    const struct vmm *v = opaque;
    JsonArray *list = json_array_new();
    for (struct job *j = NULL; (j = job_next(v->jobs, j));) {
        struct job_info i;
        JsonObject *o = json_object_new();
        job_get_info(j, &i);
        json_object_set_string_member(o, "id", i.id);
        json_object_set_string_member(o, "type", job_kind_words[i.kind]);
        json_object_set_string_member(o, "status", job_status_words[i.status]);
        json_object_set_int_member(o, "current-progress", i.done);
        json_object_set_int_member(o, "total-progress", i.total);
        if (i.error)
            json_object_set_string_member(o, "error", i.error);
        json_array_add_object_element(list, o);
    }
    return qmp_array(list);
}
static const struct qmp_command query_jobs_cmd = { .name = "query-jobs",
                                                   .summary = "Jobs",
                                                   .call = query_jobs };
QMP_COMMAND(query_jobs_cmd);

static JsonNode *query_block_jobs(void *opaque, JsonObject *args, GError **error)
{
    const struct vmm *v = opaque;
    JsonArray *list = json_array_new();
    for (struct job *j = NULL; (j = job_next(v->jobs, j));) {
        struct job_info i;
        if (!job_is_block_job(j))
            continue;
        job_get_info(j, &i);
        JsonObject *o = block_job_data(&i);
        json_object_set_boolean_member(o, "busy", i.busy);
        json_object_set_boolean_member(o, "paused", i.paused);
        json_object_set_string_member(o, "io-status",
                                      i.no_space    ? "nospace"
                                      : i.failed_io ? "failed"
                                                    : "ok");
        json_object_set_boolean_member(o, "ready", i.ready);
        json_object_set_string_member(o, "status", job_status_words[i.status]);
        json_object_set_boolean_member(o, "auto-finalize", i.auto_finalize);
        json_object_set_boolean_member(o, "auto-dismiss", i.auto_dismiss);
        if (i.error)
            json_object_set_string_member(o, "error", i.error);
        json_array_add_object_element(list, o);
    }
    return qmp_array(list);
}
static const struct qmp_command query_block_jobs_cmd = { .name = "query-block-jobs",
                                                         .summary = "Jobs on disks",
                                                         .call = query_block_jobs };
QMP_COMMAND(query_block_jobs_cmd);

/* ---- verbs ---- */

/* QEMU's class for a block job that is not there differs from that of other things. */
static struct job *find(struct vmm *v, JsonObject *args, GError **error)
{
    const char *block = arg_string(args, "device"), *id = block ? block : arg_string(args, "id");
    struct job *j = job_find(v->jobs, id);
    if (j && (!block || job_is_block_job(j)))
        return j;
    if (block)
        g_set_error(error, QMP_DEVICE_NOT_ACTIVE, 0, "there is no block job '%s'", id);
    else
        ruche_error(error, RUCHE_ERR_STATE, "there is no job '%s'", id);
    return NULL;
}

static JsonNode *act(void *opaque, JsonObject *args, enum job_verb verb, bool force, GError **error)
{
    struct job *j = find(opaque, args, error);
    uint64_t speed = 0;
    if (j && arg_u64(args, "speed", INT64_MAX, &speed, error))
        job_do(j, verb, speed, force, error);
    return NULL;
}

#define VERB(symbol, command, key, verb, force_, help, ...)                                        \
    static JsonNode *symbol(void *opaque, JsonObject *args, GError **error)                        \
    {                                                                                              \
        return act(opaque, args, verb, force_, error);                                             \
    }                                                                                              \
    static const struct qmp_arg symbol##_args[] = { { key, QMP_STRING, false, "The job" },         \
                                                    __VA_ARGS__{ 0 } };                            \
    static const struct qmp_command symbol##_cmd = {                                               \
        .name = command, .summary = help, .args = symbol##_args, .call = symbol                    \
    };                                                                                             \
    QMP_COMMAND(symbol##_cmd)

#define FORCE                                                                                      \
    { "force", QMP_BOOL, true, "Also a ready mirror ends without its target being whole" },
#define SPEED { "speed", QMP_INT, false, "Bytes a second; 0: no limit" },

VERB(block_job_cancel, "block-job-cancel", "device", JOB_VERB_CANCEL,
     arg_bool(args, "force", false), "End a job", FORCE);
VERB(block_job_pause, "block-job-pause", "device", JOB_VERB_PAUSE, false, "Let a job stand");
VERB(block_job_resume, "block-job-resume", "device", JOB_VERB_RESUME, false, "Let a job go on");
VERB(block_job_complete, "block-job-complete", "device", JOB_VERB_COMPLETE, false,
     "Switch to a ready mirror's target");
VERB(block_job_finalize, "block-job-finalize", "id", JOB_VERB_FINALIZE, false,
     "Let a pending job change the graph");
VERB(block_job_dismiss, "block-job-dismiss", "id", JOB_VERB_DISMISS, false,
     "Forget a job that has ended");
VERB(block_job_set_speed, "block-job-set-speed", "device", JOB_VERB_SET_SPEED, false,
     "Limit a job's speed", SPEED);
VERB(job_cancel, "job-cancel", "id", JOB_VERB_CANCEL, true, "End a job");
VERB(job_pause, "job-pause", "id", JOB_VERB_PAUSE, false, "Let a job stand");
VERB(job_resume, "job-resume", "id", JOB_VERB_RESUME, false, "Let a job go on");
VERB(job_complete, "job-complete", "id", JOB_VERB_COMPLETE, false,
     "Switch to a ready mirror's target");
VERB(job_finalize, "job-finalize", "id", JOB_VERB_FINALIZE, false,
     "Let a pending job change the graph");
VERB(job_dismiss, "job-dismiss", "id", JOB_VERB_DISMISS, false, "Forget a job that has ended");
