/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The jobs `create` (a format is put onto a node, or a protocol makes a file) and `amend` (a
 * format's options are changed).
 *
 * Trust     The options come from QMP peers, in QAPI's spelling ("cluster-size"); formats know them
 * as the tools spell them ("cluster_size").
 */
#include "image/job/internal.h"

#include "base/error.h"

#include <errno.h>
#include <string.h>

struct make {
    struct job job;
    struct graph *graph;
    const struct image_driver *driver;
    JsonObject *given; /* the format's options, as the tools spell them */
    struct node *node; /* referenced: the file to put a format onto, or what is amended */
    struct node_user user;
    bool blocked, opened_for_write;
    uint64_t size_bytes;
    char *filename, *backing_file, *backing_format;
};

static struct make *of(struct job *j)
{
    return container_of(j, struct make, job);
}

/* ---- options ---- */

static bool has_row(const struct image_option *rows, const char *name)
{
    size_t len = strlen(name);
    for (; rows && rows->name; rows++)
        if (!strncmp(rows->name, name, len) && (!rows->name[len] || rows->name[len] == '.'))
            return true;
    return false;
}

/* A node's name or an object stands for the file that it is. */
static void set_value(JsonObject *to, const char *key, JsonNode *value, struct graph *g)
{
    if (!strcmp(key, "version") && JSON_NODE_HOLDS_VALUE(value)) {
        const char *version = json_node_get_string(value);
        json_object_set_string_member(to, "compat", g_strcmp0(version, "v2") ? "1.1" : "0.10");
        return;
    }
    g_autofree char *name = g_strdelimit(g_strdup(key), "-", '_');
    struct node *n = NULL;
    if (!strcmp(name, "data_file") && JSON_NODE_HOLDS_VALUE(value) && json_node_get_string(value))
        n = graph_find(g, json_node_get_string(value));
    if (n)
        json_object_set_string_member(to, name, node_filename(n));
    else
        json_object_set_member(to, name, json_node_copy(value));
}

static JsonObject *tool_spelling(const struct image_option *rows, JsonObject *from,
                                 const char *const *others, struct graph *g)
{
    JsonObject *to = json_object_new();
    JsonObjectIter it;
    const char *key;
    JsonNode *value;
    json_object_iter_init(&it, from);
    while (json_object_iter_next(&it, &key, &value)) {
        if (g_strv_contains(others, key))
            continue;
        if (has_row(rows, key))
            json_object_set_member(to, key, json_node_copy(value));
        else
            set_value(to, key, value, g);
    }
    return to;
}

static bool get_size(JsonObject *o, uint64_t *ret, GError **error)
{
    if (!json_object_has_member(o, "size"))
        return ruche_error(error, RUCHE_ERR_INVALID, "'size' is missing");
    JsonNode *n = json_object_get_member(o, "size");
    gint64 size = JSON_NODE_HOLDS_VALUE(n) ? json_node_get_int(n) : -1;
    if (size < 0 || (uint64_t)size > IMAGE_SIZE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "'size' is not a number of bytes from 0 to %llu", IMAGE_SIZE_MAX);
    *ret = (uint64_t)size;
    return true;
}

/* ---- create ---- */

static int create_run(struct job *j)
{
    struct make *m = of(j);
    g_autoptr(GError) error = NULL;
    const struct image_driver *d = m->driver;
    g_autofree void *options = d->create_size ? g_malloc0(d->create_size) : NULL;
    job_set_total(j, 1);
    if (!d->create) { /* a file, of which only the size is asked for */
        struct node *n = image_create_file(m->graph, m->filename, m->size_bytes, &error);
        node_unref(n);
        job_add_done(j, n != NULL);
        return n ? 0 : job_fail(j, -EINVAL, "%s", error->message);
    }
    struct image_create c = { .driver = d,
                              .graph = m->graph,
                              .filename = m->filename,
                              .files = image_files_new(),
                              .file = m->node,
                              .size_bytes = m->size_bytes,
                              .backing_file = m->backing_file,
                              .backing_format = m->backing_format,
                              .options = options };
    bool ok = option_parse(d->create_options, m->given, d->name, options, &error) &&
              option_all_used(m->given, d->create_options, NULL, d->name, &error) &&
              d->create(&c, &error);
    if (d->create_options && options)
        option_clear(d->create_options, options);
    int r = ok && m->node ? node_flush(m->node) : 0;
    if (r < 0 || !ok)
        image_files_abort(c.files);
    else
        ok = image_files_commit(c.files, true, &error);
    if (r < 0)
        return -EIO;
    if (!ok)
        return job_fail(j, -EINVAL, "%s", error ? error->message : "the image cannot be made");
    job_add_done(j, 1);
    return 0;
}

static void make_clean(struct job *j)
{
    struct make *m = of(j);
    if (m->user.node)
        node_leave(&m->user);
    if (m->blocked)
        node_block(m->node, NULL, NULL);
    if (m->opened_for_write)
        node_set_read_only(m->node, true, NULL);
    node_unref(m->node);
    g_clear_pointer(&m->given, json_object_unref);
    g_clear_pointer(&m->filename, g_free);
    g_clear_pointer(&m->backing_file, g_free);
    g_clear_pointer(&m->backing_format, g_free);
}

static const struct job_type create_type = {
    .kind = JOB_CREATE,
    .size = sizeof(struct make),
    .run = create_run,
    .clean = make_clean,
};

struct setup {
    struct make *m;
    GError **error;
};

static int take_node(void *opaque)
{
    struct setup *s = opaque;
    struct make *m = s->m;
    m->blocked = node_block(m->node, m->job.who, s->error);
    if (!m->blocked)
        return -EBUSY;
    if (node_is_read_only(m->node)) {
        m->opened_for_write = node_set_read_only(m->node, false, s->error);
        if (!m->opened_for_write)
            return -EROFS;
    }
    return job_use_node(&m->job, &m->user, m->node, PERM_ALL, 0, s->error) ? 0 : -EBUSY;
}

static int clean_call(void *opaque)
{
    make_clean(&((struct make *)opaque)->job);
    return 0;
}

static struct job *start(struct make *m, const struct job_common *c, GError **error)
{
    struct setup s = { .m = m, .error = error };
    if (!m->node || context_run(m->job.ctx, take_node, &s) >= 0) {
        job_born(&m->job, c);
        return &m->job;
    }
    context_run(m->job.ctx, clean_call, m);
    job_free_new(&m->job);
    return NULL;
}

static const char *string_of(JsonObject *o, const char *key)
{
    JsonNode *n = json_object_get_member(o, key);
    return n && JSON_NODE_HOLDS_VALUE(n) ? json_node_get_string(n) : NULL;
}

static const struct image_driver *creating_driver(JsonObject *options, GError **error)
{
    const char *name = string_of(options, "driver");
    if (!name) {
        ruche_error(error, RUCHE_ERR_INVALID, "'driver' is missing");
        return NULL;
    }
    const struct image_driver *d = driver_find(name, error);
    if (d && !d->create && strcmp(name, "file")) {
        ruche_error(error, RUCHE_ERR_UNSUPPORTED, "driver '%s' cannot create images", name);
        return NULL;
    }
    return d;
}

/* The node to put a format onto; a reference. */
static struct node *file_of(struct graph *g, JsonObject *options, GError **error)
{
    JsonNode *file = json_object_get_member(options, "file");
    if (file && JSON_NODE_HOLDS_OBJECT(file))
        return node_open(g, json_node_get_object(file), NODE_RW, error);
    const char *name = string_of(options, "file");
    struct node *n = name ? graph_find(g, name) : NULL;
    if (n)
        return node_ref(n);
    if (name)
        ruche_error(error, RUCHE_ERR_NOT_FOUND, "file: there is no node '%s'", name);
    else
        ruche_error(error, RUCHE_ERR_INVALID,
                    "'file' is missing: the node that the format is put onto");
    return NULL;
}

struct job *job_create(struct job_set *set, const struct job_common *c, struct graph *g,
                       JsonObject *options, GError **error)
{
    static const char *const others[] = { "driver",       "file",        "filename", "size",
                                          "backing-file", "backing-fmt", "location", NULL };
    const struct image_driver *d = creating_driver(options, error);
    uint64_t size = 0;
    struct node *file = NULL;
    if (!d || !get_size(options, &size, error))
        return NULL;
    if (d->kind != DRIVER_PROTOCOL && !(file = file_of(g, options, error)))
        return NULL;
    const char *filename = file ? node_filename(file) : string_of(options, "filename");
    if (!filename) {
        ruche_error(error, RUCHE_ERR_INVALID, "'filename' is missing");
        return NULL;
    }
    struct job *j =
        job_new(set, &create_type, c, file, file ? node_context(file) : graph_context(g), error);
    if (!j) {
        node_unref(file);
        return NULL;
    }
    struct make *m = of(j);
    m->graph = g;
    m->driver = d;
    m->node = file;
    m->size_bytes = size;
    m->filename = g_strdup(filename);
    m->backing_file = g_strdup(string_of(options, "backing-file"));
    m->backing_format = g_strdup(string_of(options, "backing-fmt"));
    m->given = tool_spelling(d->create_options, options, others, g);
    return start(m, c, error);
}

/* ---- amend ---- */

static void amend_progress(uint64_t done, uint64_t total, void *opaque)
{
    struct job *j = opaque;
    j->total = total;
    j->done = done;
}

static int amend_run(struct job *j)
{
    struct make *m = of(j);
    g_autoptr(GError) error = NULL;
    struct image_progress p = { .fn = amend_progress, .opaque = j };
    job_set_total(j, 1);
    if (!m->driver->amend(m->node, m->given, &p, &error))
        return job_fail(j, -EINVAL, "%s", error ? error->message : "the image cannot be amended");
    j->done = j->total;
    return 0;
}

static const struct job_type amend_type = {
    .kind = JOB_AMEND,
    .size = sizeof(struct make),
    .run = amend_run,
    .clean = make_clean,
};

struct job *job_amend(struct job_set *set, const struct job_common *c, struct node *n,
                      JsonObject *given, bool force, GError **error)
{
    static const char *const others[] = { "driver", NULL };
    n = node_skip_filters(n);
    const char *driver = string_of(given, "driver");
    if (driver && strcmp(driver, node_format(n))) {
        ruche_error(error, RUCHE_ERR_INVALID, "node '%s' has the format '%s', not '%s'",
                    node_name(n), node_format(n), driver);
        return NULL;
    }
    if (!n->driver->amend) {
        ruche_error(error, RUCHE_ERR_UNSUPPORTED, "images of format '%s' cannot be amended",
                    node_format(n));
        return NULL;
    }
    struct job *j = job_new(set, &amend_type, c, n, node_context(n), error);
    if (!j)
        return NULL;
    struct make *m = of(j);
    m->graph = node_graph(n);
    m->driver = n->driver;
    m->node = node_ref(n);
    m->given = tool_spelling(n->driver->create_options, given, others, m->graph);
    if (force)
        json_object_set_boolean_member(m->given, "force", TRUE);
    return start(m, c, error);
}
