/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ruche-img: finds the verb, reads its options and runs it in a fiber.
 *
 * Thread    One. SIGINT, SIGTERM, SIGHUP, SIGUSR1 and SIGINFO arrive through the context's loop, so
 * that a run that is interrupted first removes what it has half written.
 */
#include "base/log.h"
#include "img/img.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define VERBS_MAX    64
#define PATIENCE_SEC 60

/* What crosses from main() into the fiber and back. */
struct call {
    struct img img;
    const struct verb *verb;
    void *options;
    char **operands;
    unsigned count;
};

static int compare_verbs(const void *a, const void *b)
{
    return strcmp((*(const struct verb *const *)a)->name, (*(const struct verb *const *)b)->name);
}

/* Sorted by name. */
static unsigned list_verbs(const struct verb **ret)
{
    unsigned count = 0;
    LINKSET_FOREACH (img_verbs, struct verb, v) {
        if (count < VERBS_MAX)
            ret[count++] = v;
    }
    for (const struct verb *const *v = module_verbs(); *v && count < VERBS_MAX; v++)
        ret[count++] = *v;
    qsort(ret, count, sizeof(*ret), compare_verbs);
    return count;
}

static const struct verb *find_verb(const char *name, GError **error)
{
    const struct verb *all[VERBS_MAX];
    const char *words[VERBS_MAX + 1];
    unsigned count = list_verbs(all);
    for (unsigned i = 0; i < count; i++) {
        if (!strcmp(all[i]->name, name))
            return all[i]->run ? all[i] : module_verb_load(name, error);
        words[i] = all[i]->name;
    }
    words[count] = NULL;
    ruche_error(error, RUCHE_ERR_UNKNOWN, "unknown command '%s'%s", name,
                suggest_phrase(name, words));
    return NULL;
}

static void print_version(void)
{
    puts("ruche-img version " RUCHE_VERSION);
}

static int compare_words(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static void print_formats(void)
{
    g_autoptr(GPtrArray) names = g_ptr_array_new();
    LINKSET_FOREACH (image_drivers, struct image_driver, d) {
        if (!(d->flags & DRIVER_HIDDEN))
            g_ptr_array_add(names, (char *)d->name);
    }
    qsort(names->pdata, names->len, sizeof(*names->pdata), compare_words);
    fputs("\nSupported formats:", stdout);
    for (guint i = 0; i < names->len; i++)
        printf(" %s", (const char *)names->pdata[i]);
    puts("");
}

static void print_help(void)
{
    const struct verb *all[VERBS_MAX];
    unsigned count = list_verbs(all);
    print_version();
    puts("usage: ruche-img [-h | --help | -V | --version] COMMAND ...\n"
         "Makes, inspects, changes and serves disk images.\n");
    for (unsigned i = 0; i < count; i++)
        printf("  %-10s %s\n", all[i]->name, all[i]->summary);
    puts("\n'ruche-img COMMAND --help' describes a command.");
    print_formats();
}

/* ---- signals ---- */

static struct {
    void (*fn)(void *opaque);
    void *opaque;
} on_end;

void img_on_end(void (*fn)(void *opaque), void *opaque)
{
    on_end.fn = fn;
    on_end.opaque = opaque;
}

static void end_by_signal(int number)
{
    image_files_abort_all();
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, number);
    signal(number, SIG_DFL);
    raise(number);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    _exit(128 + number);
}

static void on_signal(void *opaque, uint32_t events)
{
    struct signalfd_siginfo si;
    if (read(*(int *)opaque, &si, sizeof(si)) != sizeof(si))
        return;
    if (si.ssi_signo == SIGUSR1)
        progress_report();
    else if (on_end.fn)
        on_end.fn(on_end.opaque);
    else
        end_by_signal((int)si.ssi_signo);
}

/* Before any thread starts: they inherit the mask. Returns a signalfd. */
static int catch_signals(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGUSR1);
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file size limit is a full disk: -EFBIG */
    sigprocmask(SIG_BLOCK, &set, NULL);
    return signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* ---- the run ---- */

static int run_verb(void *opaque)
{
    struct call *c = opaque;
    return c->verb->run(&c->img, c->options, c->operands, c->count);
}

static int run_in_context(struct call *c, int signals)
{
    GError *error = NULL;
    c->img.ctx = context_new(&error);
    if (!c->img.ctx)
        return img_fail(error, EXIT_FAILURE);
    context_set_patient(c->img.ctx, true);
    c->img.graph = graph_new(c->img.ctx);
    graph_set_patience(c->img.graph, PATIENCE_SEC);
    struct loop_fd watch = {0};
    if (signals >= 0)
        loop_fd_add(context_loop(c->img.ctx), &watch, signals, EPOLLIN, on_signal, &signals);
    int code = context_run(c->img.ctx, run_verb, c);
    loop_fd_remove(&watch);
    graph_free(c->img.graph);
    context_free(c->img.ctx);
    if (fflush(stdout) || ferror(stdout))
        code =
            img_fail(g_error_new(RUCHE_ERROR, RUCHE_ERR_IO, "standard output: %s", strerror(errno)),
                     code ? code : EXIT_FAILURE);
    return code;
}

static bool wants_help(const struct verb *v, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--"))
            return false;
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h"))
            return true;
    }
    return false;
}

static int call_verb(const struct verb *v, int argc, char **argv, int signals)
{
    if (wants_help(v, argc, argv)) {
        args_print_help(v);
        return EXIT_SUCCESS;
    }
    struct call c = {.verb = v,
                     .options = g_malloc0(v->size),
                     .operands = argv + 1,
                     .count = (unsigned)(argc - 1)};
    GError *error = NULL;
    int code;
    if (v->args && !args_parse(v, argc, argv, c.options, &c.count, &error))
        code = img_fail(error, EXIT_FAILURE);
    else if (v->args && !img_add_objects(((struct img_common *)c.options)->objects, &error))
        code = img_fail(error, EXIT_FAILURE);
    else if (!v->before || (code = v->before(c.options)) < 0)
        code = run_in_context(&c, signals);
    args_clear(v, c.options);
    g_free(c.options);
    return code;
}

int main(int argc, char **argv)
{
    log_set_program("ruche-img");
    int signals = catch_signals();
    GError *error = NULL;
    const char *word = argc > 1 ? argv[1] : NULL;
    if (!word) {
        ruche_error(&error, RUCHE_ERR_INVALID,
                    "a command is needed; 'ruche-img --help' lists them");
        return img_fail(error, EXIT_FAILURE);
    }
    if (!strcmp(word, "-h") || !strcmp(word, "--help")) {
        print_help();
        return EXIT_SUCCESS;
    }
    if (!strcmp(word, "-V") || !strcmp(word, "--version")) {
        print_version();
        return EXIT_SUCCESS;
    }
    const struct verb *v = find_verb(word, &error);
    return v ? call_verb(v, argc - 1, argv + 1, signals) : img_fail(error, EXIT_FAILURE);
}
