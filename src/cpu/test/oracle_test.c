/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Every instruction form that user mode can run, against the host's CPU.
 *
 *   oracle_test [--seed N] [--count N] [--row MNEMONIC] [--engine blocks|step|translate] [--skipped] [--keep DIR] [--more]
 *               [CORPUS DIR]
 *
 * Runs the corpus, then N cases of each row and as many short blocks. Failures are made small, shown, and
 * with --keep written to DIR, one file each. --more shows more than one failure a row. Speaks TAP.
 */
#include "cpu/insn.h"
#include "cpu/test/oracle.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    uint64_t seed;
    unsigned count;
    const char *row, *keep, *corpus;
    int engine; /* enum soft_how; -1: all in turn */
    bool skipped, more;
} opt = { .seed = 0x5eed, .count = 20, .engine = -1 };

static unsigned tap_number, failures;

static void tap(bool ok, const char *name, const char *note)
{
    printf("%sok %u - %s%s%s\n", ok ? "" : "not ", ++tap_number, name, note ? " # " : "", note ? note : "");
    failures += !ok;
}

static void comment(const char *text)
{
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, "\n");
        printf("# %.*s\n", (int)n, p);
        p += n + (p[n] == '\n');
    }
}

static void show_failure(struct test_case *t, enum soft_how how)
{
    static unsigned kept;
    char text[8192];
    char path[512];

    case_minimise(t, how);
    if (case_agrees(t, how, text, sizeof(text)))
        snprintf(text, sizeof(text), "agrees when run again: not deterministic\n");
    comment(text);
    if (!opt.keep)
        return;
    snprintf(path, sizeof(path), "%s/%s-%03u.case", opt.keep, insn_rows[t->row].mnemonic, kept++);
    if (!case_write(t, path))
        printf("# cannot write %s\n", path);
}

static void run_row(unsigned row)
{
    struct rng r = { opt.seed * 0x9e3779b97f4a7c15ull + row * 2654435761u + 1 };
    static struct test_case t;
    char name[64], text[8192];
    unsigned ran = 0, bad = 0;

    for (unsigned tries = 0; ran < opt.count && tries < 20 * opt.count; tries++) {
        static const enum soft_how turns[] = { SOFT_BLOCKS, SOFT_TRANSLATE, SOFT_STEP, SOFT_TRANSLATE };
        enum soft_how how = turns[rng_below(&r, ARRAY_COUNT(turns))];
        if (opt.engine >= 0)
            how = (enum soft_how)opt.engine;
        if (!gen_case(&r, row, &t))
            continue;
        ran++;
        if (case_agrees(&t, how, text, sizeof(text)))
            continue;
        if (bad++ == 0 || opt.more)
            show_failure(&t, how);
    }
    snprintf(name, sizeof(name), "row %u %s: %u of %u cases differ", row, insn_rows[row].mnemonic, bad, ran);
    tap(bad == 0 && ran > 0, name, NULL);
}

static bool gen_xsave_case(struct rng *r, struct test_case *t)
{
    if (!gen_block(r, t))
        return false;
    gen_xsave(r, t);
    return true;
}

/* The host's XINUSE, which XSAVEC and XSAVEOPT show, changes when the host switches tasks inside the native run: what
 * differs once and agrees when run again was not ours. */
static bool agrees_in_two(struct test_case *t, enum soft_how how, char *text, size_t size)
{
    return case_agrees(t, how, text, size) || case_agrees(t, how, text, size);
}

static void run_blocks(const char *what, bool (*gen)(struct rng *r, struct test_case *t))
{
    struct rng r = { opt.seed * 0x9e3779b97f4a7c15ull + 77 };
    static struct test_case t;
    char name[64], text[8192];
    unsigned bad = 0, count = opt.count * 50;

    for (unsigned k = 0; k < count; k++) {
        enum soft_how how = k & 1 ? SOFT_TRANSLATE : SOFT_BLOCKS;
        if (opt.engine >= 0)
            how = (enum soft_how)opt.engine;
        if (!gen(&r, &t) || agrees_in_two(&t, how, text, sizeof(text)))
            continue;
        if (bad++ == 0 || opt.more)
            show_failure(&t, how);
    }
    snprintf(name, sizeof(name), "%s: %u of %u differ", what, bad, count);
    tap(bad == 0, name, NULL);
}

static void run_corpus(void)
{
    DIR *d = opendir(opt.corpus);
    static struct test_case t;
    char path[512], text[8192];

    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        if (!strstr(e->d_name, ".case"))
            continue;
        snprintf(path, sizeof(path), "%s/%s", opt.corpus, e->d_name);
        bool ok = case_read(&t, path);
        for (enum soft_how how = 0; ok && how < N_SOFT_HOW; how++)
            if (!case_agrees(&t, how, text, sizeof(text))) {
                comment(text);
                ok = false;
            }
        tap(ok, e->d_name, NULL);
    }
    closedir(d);
}

static void run_rows(void)
{
    unsigned skipped = 0;

    for (unsigned row = 0; row < insn_row_count; row++) {
        const char *why = gen_skip_reason(row);
        if (opt.row && strcmp(opt.row, insn_rows[row].mnemonic))
            continue;
        if (!why) {
            run_row(row);
            continue;
        }
        skipped++;
        if (opt.skipped)
            printf("# skipped: row %u %s: %s\n", row, insn_rows[row].mnemonic, why);
    }
    printf("# %u rows skipped: --skipped tells why\n", skipped);
}

static int engine_named(const char *name)
{
    static const char *const names[] = { "blocks", "step", "translate" };

    for (unsigned k = 0; k < ARRAY_COUNT(names); k++)
        if (!strcmp(name, names[k]))
            return (int)k;
    return -1;
}

static bool parse(int argc, char **argv)
{
    for (int k = 1; k < argc; k++) {
        const char *value = k + 1 < argc ? argv[k + 1] : NULL;
        if (!strcmp(argv[k], "--skipped"))
            opt.skipped = true;
        else if (!strcmp(argv[k], "--more"))
            opt.more = true;
        else if (argv[k][0] != '-')
            opt.corpus = argv[k];
        else if (!value)
            return false;
        else if (!strcmp(argv[k], "--seed"))
            opt.seed = strtoull(argv[++k], NULL, 0);
        else if (!strcmp(argv[k], "--count"))
            opt.count = (unsigned)strtoul(argv[++k], NULL, 0);
        else if (!strcmp(argv[k], "--row"))
            opt.row = argv[++k];
        else if (!strcmp(argv[k], "--engine"))
            opt.engine = engine_named(argv[++k]);
        else if (!strcmp(argv[k], "--keep"))
            opt.keep = argv[++k];
        else
            return false;
    }
    return true;
}

/* --row takes these names too. */
static const struct {
    const char *name;
    bool (*gen)(struct rng *r, struct test_case *t);
} kinds[] = {
    { "programs", gen_program }, { "vector programs", gen_vector }, { "blocks", gen_block }, { "branches", gen_branch }, { "XSAVE", gen_xsave_case },
};

int main(int argc, char **argv)
{
    char *error = NULL;

    if (!parse(argc, argv)) {
        fprintf(stderr, "usage: oracle_test [--seed N] [--count N] [--row MNEMONIC] [--skipped] [--more] "
                        "[--keep DIR] [CORPUS DIR]\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!native_init()) {
        printf("1..0 # SKIP the addresses of the tests are not free on this host\n");
        return 0;
    }
    if (!soft_init(&error)) {
        printf("Bail out! %s\n", error ? error : "out of memory");
        return 1;
    }
    if (opt.corpus)
        run_corpus();
    run_rows();
    for (unsigned k = 0; k < ARRAY_COUNT(kinds); k++)
        if (!opt.row || !strcmp(opt.row, kinds[k].name))
            run_blocks(kinds[k].name, kinds[k].gen);
    soft_done();
    printf("1..%u\n", tap_number);
    return failures != 0;
}
