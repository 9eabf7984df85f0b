/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Create and amend: on files, since formats are what they are about. */
#include "image/driver.h"
#include "image/job/world.h"

#include <errno.h>
#include <glib/gstdio.h>
#include <string.h>

static const struct job_common kept = { .id = "j0", .auto_finalize = true };

struct ground {
    struct world w;
    char *path;
    struct node *file;
};

static struct node *open_node(struct world *w, const char *text)
{
    g_autoptr(GError) error = NULL;
    g_autoptr(JsonObject) o = option_parse_text(text, "driver", &error);
    struct node *n = node_open(w->graph, o, NODE_RW, &error);
    g_assert_no_error(error);
    return n;
}

static void ground_init(struct ground *g)
{
    world_init(&g->w);
    g->path = g_strdup_printf("%s/ruche-make-%d", g_get_tmp_dir(), getpid());
    g_assert_true(g_file_set_contents(g->path, "", 0, NULL));
    g_autofree char *text = g_strdup_printf("file,node-name=file,filename=%s", g->path);
    g->file = open_node(&g->w, text);
}

static void ground_done(struct ground *g)
{
    node_unref(g->file);
    world_done(&g->w);
    g_unlink(g->path);
    g_free(g->path);
}

/* ' stands for ". */
static JsonObject *parse(const char *text)
{
    g_autofree char *json = g_strdelimit(g_strdup(text), "'", '"');
    g_autoptr(JsonNode) n = json_from_string(json, NULL);
    g_assert_nonnull(n);
    return json_node_dup_object(n);
}

static struct job *create(struct ground *g, const char *text, GError **error)
{
    g_autoptr(JsonObject) o = parse(text);
    return job_create(g->w.jobs, &kept, g->w.graph, o, error);
}

/* Runs to its end and is forgotten; what went wrong, or NULL. */
static char *outcome(struct ground *g, struct job *j)
{
    struct job_info info;
    g_string_truncate(g->w.log, 0);
    PUMP_UNTIL(&g->w, has(&g->w, "j0:concluded"));
    job_get_info(j, &info);
    char *error = g_strdup(info.error);
    g_assert_true(error || info.done == info.total);
    g_assert_true(job_do(j, JOB_VERB_DISMISS, 0, false, NULL));
    return error;
}

static void succeeds(struct ground *g, struct job *j)
{
    g_assert_nonnull(j);
    g_assert_false(job_is_block_job(j));
    g_autofree char *error = outcome(g, j);
    g_assert_null(error);
}

static void fails(struct ground *g, struct job *j, const char *part)
{
    g_assert_nonnull(j);
    g_autofree char *error = outcome(g, j);
    g_assert_nonnull(error);
    if (!strstr(error, part))
        g_error("'%s' does not say '%s'", error, part);
}

static void refuses(struct ground *g, const char *text, const char *part)
{
    GError *error = NULL;
    g_assert_null(create(g, text, &error));
    assert_sentence(error, part);
    g_assert_null(node_blocked_by(g->file));
}

/* ---- create ---- */

static void test_create_file(void)
{
    struct ground g;
    GStatBuf st;
    ground_init(&g);
    g_autofree char *path = g_strconcat(g.path, ".new", NULL),
                    *text = g_strdup_printf("{'driver': 'file', 'filename': '%s', 'size': 1048576}",
                                            path);
    succeeds(&g, create(&g, text, NULL));
    g_assert_cmpint(g_stat(path, &st), ==, 0);
    g_assert_cmpint(st.st_size, ==, 1048576);
    g_unlink(path);
    g_autofree char *nowhere =
        g_strdup("{'driver': 'file', 'filename': '/nowhere/x', 'size': 1048576}");
    fails(&g, create(&g, nowhere, NULL), "/nowhere/x");
    ground_done(&g);
}

/* Options in QAPI's spelling reach the format; the file is let go of, and can be opened. */
static void test_create_format(void)
{
    struct ground g;
    ground_init(&g);
    succeeds(&g, create(&g,
                        "{'driver': 'qcow2', 'file': 'file', 'size': 4194304, 'cluster-size': 4096,"
                        " 'version': 'v2', 'backing-file': '/base', 'backing-fmt': 'raw'}",
                        NULL));
    g_assert_null(node_blocked_by(g.file));
    g_autoptr(JsonObject) options = parse("{'driver': 'qcow2', 'file': 'file', 'backing': null}");
    g_autoptr(GError) error = NULL;
    struct node *n = node_open(g.w.graph, options, NODE_RW, &error);
    g_assert_no_error(error);
    g_assert_cmpuint(node_size(n), ==, 4194304);
    g_assert_cmpuint(n->cluster_bytes, ==, 4096);
    g_assert_cmpstr(n->backing_file, ==, "/base");
    g_assert_cmpstr(n->backing_format, ==, "raw");
    node_unref(n);
    ground_done(&g);
}

static void test_create_fails(void)
{
    struct ground g;
    ground_init(&g);
    fails(&g, create(&g, "{'driver': 'qcow2', 'file': 'file', 'size': 65536, 'cluster-size': 3000}", NULL), "3000");
    fails(&g, create(&g, "{'driver': 'qcow2', 'file': 'file', 'size': 65536, 'color': 'red'}", NULL), "color");
    g_assert_null(node_blocked_by(g.file));
    refuses(&g, "{'file': 'file', 'size': 1}", "'driver' is missing");
    refuses(&g, "{'driver': 'qcow2', 'file': 'file'}", "'size' is missing");
    refuses(&g, "{'driver': 'qcow2', 'file': 'file', 'size': -1}", "'size' is not a number");
    refuses(&g, "{'driver': 'qcow3', 'file': 'file', 'size': 1}", "qcow3");
    refuses(&g, "{'driver': 'qcow2', 'size': 1}", "'file' is missing");
    refuses(&g, "{'driver': 'qcow2', 'file': 'nope', 'size': 1}", "no node 'nope'");
    refuses(&g, "{'driver': 'throttle', 'file': 'file', 'size': 1}", "cannot create images");
    refuses(&g, "{'driver': 'file', 'size': 1}", "'filename' is missing");
    ground_done(&g);
}

/* A file that somebody uses is not overwritten. */
static void test_create_in_use(void)
{
    struct ground g;
    ground_init(&g);
    struct node *user = open_node(&g.w, "raw,node-name=user,file=file");
    GError *error = NULL;
    g_assert_null(create(&g, "{'driver': 'qcow2', 'file': 'file', 'size': 65536}", &error));
    assert_sentence(error, "node 'user'");
    g_assert_null(node_blocked_by(g.file));
    node_unref(user);
    succeeds(&g, create(&g, "{'driver': 'qcow2', 'file': 'file', 'size': 65536}", NULL));
    ground_done(&g);
}

/* ---- amend ---- */

static struct job *amend(struct ground *g, struct node *n, const char *text, GError **error)
{
    g_autoptr(JsonObject) o = parse(text);
    return job_amend(g->w.jobs, &kept, n, o, false, error);
}

static char *version_of(struct node *n)
{
    g_autoptr(JsonObject) o = n->driver->describe(n);
    return g_strdup(json_object_get_string_member(o, "compat"));
}

static void test_amend(void)
{
    struct ground g;
    GError *error = NULL;
    ground_init(&g);
    succeeds(&g, create(&g, "{'driver': 'qcow2', 'file': 'file', 'size': 65536, 'version': 'v2'}", NULL));
    struct node *n = open_node(&g.w, "qcow2,node-name=n,file=file");
    g_autofree char *before = version_of(n);
    g_assert_cmpstr(before, ==, "0.10");
    struct job *j = amend(&g, n, "{'driver': 'qcow2', 'version': 'v3', 'lazy-refcounts': true}", NULL);
    g_assert_nonnull(j);
    g_assert_cmpstr(node_blocked_by(n), ==, "job 'j0'");
    struct job_common other = { .id = "j1", .auto_finalize = true };
    g_autoptr(JsonObject) more = parse("{'version': 'v2'}");
    g_assert_null(job_amend(g.w.jobs, &other, n, more, false, &error));
    assert_sentence(error, "node 'n' is busy: job 'j0'");
    succeeds(&g, j);
    g_autofree char *after = version_of(n);
    g_assert_cmpstr(after, ==, "1.1");
    g_assert_null(node_blocked_by(n));
    fails(&g, amend(&g, n, "{'cluster-size': 4096}", NULL), "cluster");
    g_assert_null(node_blocked_by(n));
    node_unref(n);
    ground_done(&g);
}

/* An image that is open for reading is written all the same, and read-only again afterwards. */
static void test_amend_read_only(void)
{
    struct ground g;
    ground_init(&g);
    succeeds(&g, create(&g, "{'driver': 'qcow2', 'file': 'file', 'size': 65536, 'version': 'v2'}", NULL));
    struct node *n = open_node(&g.w, "qcow2,node-name=n,file=file,read-only=on");
    succeeds(&g, amend(&g, n, "{'version': 'v3'}", NULL));
    g_assert_true(node_is_read_only(n));
    g_autofree char *after = version_of(n);
    g_assert_cmpstr(after, ==, "1.1");
    node_unref(n);
    ground_done(&g);
}

static void test_amend_refused(void)
{
    struct ground g;
    GError *error = NULL;
    ground_init(&g);
    struct node *layer = layer_new(g.w.graph, "layer", MIB, NULL, true);
    g_assert_null(amend(&g, layer, "{'driver': 'qcow2'}", &error));
    assert_sentence(error, "node 'layer' has the format 'layer', not 'qcow2'");
    error = NULL;
    g_assert_null(amend(&g, layer, "{}", &error));
    assert_sentence(error, "images of format 'layer' cannot be amended");
    ground_done(&g);
}

void add_make_tests(void)
{
    g_test_add_func("/job/create-file", test_create_file);
    g_test_add_func("/job/create-format", test_create_format);
    g_test_add_func("/job/create-fails", test_create_fails);
    g_test_add_func("/job/create-in-use", test_create_in_use);
    g_test_add_func("/job/amend", test_amend);
    g_test_add_func("/job/amend-read-only", test_amend_read_only);
    g_test_add_func("/job/amend-refused", test_amend_refused);
}
