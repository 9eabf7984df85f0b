/* SPDX-License-Identifier: GPL-2.0-or-later */
/* How far long work is: "    (12.34/100%)" lines as qemu-img prints them with -p, a bar on a
 * terminal without it, one line for SIGUSR1.
 *
 * Thread    One.
 */
#include "img/img.h"

#include <stdio.h>
#include <unistd.h>

#define BAR_WIDTH    40
#define STEP_PERCENT 1.0 /* a change that is worth a line */
#define BAR_STEP_NS  (100 * NS_PER_MS)

static struct {
    bool lines, bar;
    bool bar_drawn;
    double now, shown;
    int64_t drawn_ns;
} progress;

static void print_line(void)
{
    printf("    (%3.2f/100%%)\r", progress.now);
    fflush(stdout);
    progress.shown = progress.now;
}

static void draw_bar(void)
{
    int64_t now_ns = loop_now_ns();
    if (now_ns - progress.drawn_ns < BAR_STEP_NS)
        return;
    char bar[BAR_WIDTH + 1];
    for (unsigned i = 0; i < BAR_WIDTH; i++)
        bar[i] = i < progress.now * BAR_WIDTH / 100.0 ? '#' : '.';
    bar[BAR_WIDTH] = 0;
    fprintf(stderr, "\r[%s] %5.1f%%", bar, progress.now);
    progress.bar_drawn = true;
    progress.drawn_ns = now_ns;
}

void progress_begin(const struct img_common *c)
{
    progress.lines = c->progress && !c->quiet;
    progress.bar = !c->progress && !c->quiet && isatty(STDERR_FILENO);
    progress.now = progress.shown = 0;
    progress.bar_drawn = false;
    progress.drawn_ns = loop_now_ns();
    if (progress.lines)
        print_line();
}

void progress_set(uint64_t done, uint64_t total)
{
    progress.now = total ? 100.0 * (double)min_u64(done, total) / (double)total : 100.0;
    if (progress.lines && progress.now - progress.shown >= STEP_PERCENT)
        print_line();
    else if (progress.bar)
        draw_bar();
}

void progress_end(bool finished)
{
    if (progress.lines) {
        if (finished)
            progress.now = 100.0;
        print_line();
        puts("");
    } else if (progress.bar_drawn) {
        fprintf(stderr, "\r%*s\r", BAR_WIDTH + 10, "");
    }
    progress.lines = progress.bar = false;
}

void progress_report(void)
{
    fprintf(stderr, "    (%3.2f/100%%)\n", progress.now);
}
