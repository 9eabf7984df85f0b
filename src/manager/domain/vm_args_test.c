/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Command lines of domains, held against golden files: NAME.xml gives NAME.ruche.args and
 * NAME.qemu.args, an argument a line. GOLDEN_UPDATE=1 writes them anew.
 *
 * Arguments: the folder.
 */
#include "manager/domain/vm_args.h"

#include "manager/domain/def.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

static const char *folder;

/* ---- a host that has everything ---- */

static int open_any(void *opaque, const char *path, int flags, GError **error)
{
    return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int listen_any(void *opaque, const char *path, GError **error)
{
    return open("/dev/null", O_RDWR | O_CLOEXEC);
}

static bool any_tap(void *opaque, struct xml_node *interface, unsigned queues, int *ret,
                    char **ret_name, GError **error)
{
    for (unsigned i = 0; i < queues; i++)
        ret[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
    *ret_name = g_strdup("vnet0");
    return true;
}

static unsigned any_port(void *opaque, unsigned first, GError **error)
{
    return first;
}

static int64_t new_year(void *opaque)
{
    return 1704067200; /* 2024-01-01 */
}

static GBytes *any_secret(void *opaque, const struct xml_node *secret, enum secret_usage usage,
                          GError **error)
{
    return g_bytes_new("sesame", 6);
}

static const struct vm_args_ops ops = {open_any, listen_any, any_tap,
                                       any_port, new_year,   any_secret};

/* ---- the files ---- */

static struct xml_node *read_domain(const char *name)
{
    g_autoptr(GError) error = NULL;
    g_autofree char *file = g_strconcat(name, ".xml", NULL),
                    *path = g_build_filename(folder, file, NULL), *text = NULL;
    gsize len;
    g_assert_true(g_file_get_contents(path, &text, &len, NULL));
    auto_domain_def *d = domain_def_parse(text, len, DEF_LIVE, &error);
    g_assert_no_error(error);
    auto_domain_def *live =
        domain_def_from_doc(xml_copy(domain_def_tree(d)), DEF_LIVE | DEF_STORED, &error);
    g_assert_no_error(error);
    return xml_copy(domain_def_tree(live));
}

/* Options and their values on one line each. */
static char *lines(const GPtrArray *argv)
{
    GString *s = g_string_new(NULL);
    for (guint i = 0; i + 1 < argv->len; i++) {
        const char *word = g_ptr_array_index(argv, i), *next = g_ptr_array_index(argv, i + 1);
        bool pair = word[0] == '-' && next && next[0] != '-';
        g_string_append_printf(s, pair ? "%s " : "%s\n", word);
    }
    return g_string_free(s, FALSE);
}

static void compare(const char *name, bool ours)
{
    g_autoptr(GError) error = NULL;
    auto_xml *doc = read_domain(name);
    g_autofree char *file = g_strdup_printf("%s.%s.args", name, ours ? "ruche" : "qemu");
    g_autofree char *path = g_build_filename(folder, file, NULL), *want = NULL;
    struct vm_args a;
    vm_args_init(&a, doc, ours);
    a.dir = "/run/ruche/machines/UUID";
    a.console_log = "/var/log/ruche/consoles/NAME.log";
    a.ops = &ops;
    vm_args_build(&a, ours ? "ruche-vmm" : "qemu-system-x86_64", &error);
    g_assert_no_error(error);
    g_autofree char *got = lines(a.argv);
    vm_args_done(&a);
    if (g_getenv("GOLDEN_UPDATE"))
        g_assert_true(g_file_set_contents(path, got, -1, NULL));
    g_assert_true(g_file_get_contents(path, &want, NULL, NULL));
    g_assert_cmpstr(got, ==, want);
}

static void test_ours(gconstpointer name)
{
    compare(name, true);
}

static void test_qemu(gconstpointer name)
{
    compare(name, false);
}

/* Commas are values' own, and options' end. */
static void test_words(void)
{
    GString *s = opt_new("a,b");
    opt_add(s, "k", "x,,y");
    opt_add(s, "none", NULL);
    g_assert_cmpstr(s->str, ==, "a,,b,k=x,,,,y");
    g_string_free(s, TRUE);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        bool ours;
    } files[] = {
        {"kernel", true}, {"disks", true}, {"tuned", true}, {"volumes", true}, {"cards", true}, {"desktop", false}, {"pc", false}};
    g_test_init(&argc, &argv, NULL);
    if (argc < 2)
        return 2;
    folder = argv[1];
    g_test_add_func("/vm-args/words", test_words);
    for (size_t i = 0; i < G_N_ELEMENTS(files); i++) {
        g_autofree char *ours = g_strdup_printf("/vm-args/ruche/%s", files[i].name),
                        *qemu = g_strdup_printf("/vm-args/qemu/%s", files[i].name);
        if (files[i].ours)
            g_test_add_data_func(ours, files[i].name, test_ours);
        g_test_add_data_func(qemu, files[i].name, test_qemu);
    }
    return g_test_run();
}
