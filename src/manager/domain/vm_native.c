/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The command line of a description, for people: files by their paths, nothing of the host touched.
 */
#include "manager/domain/vm_internal.h"

#include "manager/domain/vm_args.h"
#include "manager/node/node.h"

#include <fcntl.h>

/* Instead of what the machine would be given: something to count. */
static int no_file(void *opaque, const char *path, int flags, GError **error)
{
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        ruche_error_errno(error, errno, "'/dev/null'");
    return fd;
}

static int no_socket(void *opaque, const char *path, GError **error)
{
    return no_file(opaque, path, 0, error);
}

static bool no_tap(void *opaque, struct xml_node *interface, unsigned queues, int *ret,
                   char **ret_name, GError **error)
{
    for (unsigned i = 0; i < queues; i++)
        if ((ret[i] = no_file(opaque, "", 0, error)) < 0) {
            while (i)
                close(ret[--i]);
            return false;
        }
    *ret_name = g_strdup(xml_get_or(interface, "target@dev", "vnet0"));
    return true;
}

static unsigned first_port(void *opaque, unsigned first, GError **error)
{
    return first;
}

static int64_t now(void *opaque)
{
    return g_get_real_time() / G_USEC_PER_SEC;
}

/* No value of a secret is asked for where by_path is set. */
static const struct vm_args_ops ops = {no_file, no_socket, no_tap, first_port, now, NULL};

/* An option and its value are a line. */
static char *lines(const GPtrArray *argv)
{
    GString *s = g_string_new(NULL);
    for (guint i = 0; i + 1 < argv->len; i++) {
        const char *word = g_ptr_array_index(argv, i);
        g_autofree char *quoted =
            strspn(word,
                   "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=,:+@") ==
                    strlen(word)
                ? g_strdup(word)
                : g_shell_quote(word);
        g_string_append_printf(s, "%s%s", i ? *word == '-' ? " \\\n" : " " : "", quoted);
    }
    g_string_append_c(s, '\n');
    return g_string_free(s, FALSE);
}

char *vm_native(struct domain_def *def, GError **error)
{
    const struct emulator *e = node_emulator(def->s.emulator, def->s.arch, error);
    if (!e)
        return NULL;
    bool ours = e->ours;
    g_autofree char *program = g_strdup(e->path), *console = vm_console_log_path(def->s.name);
    auto_domain_def *named =
        domain_def_from_doc(xml_copy(domain_def_tree(def)), DEF_LIVE | DEF_STORED, error);
    if (!named)
        return NULL;
    auto_xml *doc = xml_copy(domain_def_tree(named));
    char uuid[UUID_TEXT_BYTES];
    uuid_format(def->s.uuid, uuid);
    g_autofree char *dir = g_build_filename(manager.runtime_dir, "machines", uuid, NULL);
    struct vm_args a;
    vm_args_init(&a, doc, ours);
    a.dir = dir;
    a.console_log = console;
    a.by_path = true;
    a.ops = &ops;
    bool ok = vm_find_volumes(a.domain, error) && vm_args_build(&a, program, error);
    char *text = ok ? lines(a.argv) : NULL;
    vm_args_done(&a);
    return text;
}
