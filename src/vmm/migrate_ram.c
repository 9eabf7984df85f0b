/* SPDX-License-Identifier: GPL-2.0-or-later */
/* RAM into the stream, in rounds.
 *
 * Thread    The migration's own. The guest may write what is read here; then the page is marked and sent again.
 */
#include "machine/dirty.h"
#include "vmm/migrate_internal.h"

#include <string.h>
#include <sys/types.h>
#include <unistd.h>

#define WINDOW_NS 100000000 /* the bandwidth is looked at ten times a second */
#define SECOND_NS 1000000000ull
#define BANDWIDTH_UNKNOWN (1ull << 30)

static void want(struct migration *g, uint64_t first, uint64_t count)
{
    for (uint64_t page = first; page < first + count; page++)
        g->todo[page / 64] |= 1ull << (page % 64);
    g->todo_pages += count;
}

/* The pages of a part of RAM that its memfd has; the others were never touched and read as zero. */
static void want_present(struct migration *g, uint64_t first, uint64_t count, off_t at)
{
    int fd = g->machine->ram_fd;
    off_t end = at + (off_t)(count * MIGRATE_PAGE), from = at;
    while (from < end) {
        off_t data = lseek(fd, from, SEEK_DATA), hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
        if (data < 0 && from == at && lseek(fd, 0, SEEK_HOLE) < 0) { /* it cannot tell */
            want(g, first, count);
            return;
        }
        if (data < 0 || data >= end)
            break;
        hole = hole < 0 || hole > end ? end : hole;
        uint64_t a = (uint64_t)(data - at) / MIGRATE_PAGE, b = (uint64_t)(hole - at + MIGRATE_PAGE - 1) / MIGRATE_PAGE;
        want(g, first + a, b - a);
        from = hole;
    }
}

void migrate_ram_begin(struct migration *g)
{
    const struct migrate_ram *r = &g->ram;
    want_present(g, 0, r->low_pages, 0);
    if (r->high_pages)
        want_present(g, r->high_first, r->high_pages, (off_t)(r->low_pages * MIGRATE_PAGE));
    pthread_mutex_lock(&g->worker.lock);
    g->stats.zero_pages += r->low_pages + r->high_pages - g->todo_pages;
    g->stats.remaining_bytes = g->todo_pages * MIGRATE_PAGE;
    pthread_mutex_unlock(&g->worker.lock);
    g->first = true;
}

/* Holds the thread up until what was sent fits the bandwidth. False: cancelled. */
static bool wait_for_turn(struct migration *g)
{
    for (;;) {
        pthread_mutex_lock(&g->worker.lock);
        uint64_t limit = g->parameters.max_bandwidth_bytes;
        pthread_mutex_unlock(&g->worker.lock);
        int64_t now = loop_now_ns(), spent = now - g->window_ns;
        int64_t due = limit && g->live ? (int64_t)((double)g->window_bytes / (double)limit * SECOND_NS) : 0;
        if (due <= spent) {
            if (spent > WINDOW_NS) {
                g->window_ns = now;
                g->window_bytes = 0;
            }
            return true;
        }
        if (!migrate_channel_sleep(&g->channel, MIN(due - spent, WINDOW_NS)))
            return false;
    }
}

static void count_sent(struct migration *g, uint64_t bytes, uint64_t zero, uint64_t normal, uint64_t left)
{
    int64_t now = loop_now_ns();
    g->window_bytes += bytes;
    g->round_bytes += bytes;
    g->rate_bytes += bytes;
    pthread_mutex_lock(&g->worker.lock);
    struct migrate_stats *s = &g->stats;
    s->transferred_bytes += bytes;
    *(g->live ? &s->precopy_bytes : &s->downtime_bytes) += bytes;
    s->zero_pages += zero;
    s->normal_pages += normal;
    s->remaining_bytes = left * MIGRATE_PAGE;
    if (now - g->rate_ns >= WINDOW_NS) {
        double seconds = (double)(now - g->rate_ns) / SECOND_NS;
        s->mbps = (double)g->rate_bytes * 8 / seconds / 1e6;
        s->pages_per_second = (uint64_t)((double)(g->rate_bytes / MIGRATE_PAGE) / seconds);
        g->rate_ns = now;
        g->rate_bytes = 0;
    }
    pthread_mutex_unlock(&g->worker.lock);
}

/* Pages that wait in the writer's record, not counted yet. */
struct waiting {
    uint64_t zero, normal;
};

static bool flush(struct migration *g, struct waiting *w, GError **error)
{
    size_t bytes = migrate_waiting_bytes(&g->writer);
    if (bytes && !migrate_flush_ram(&g->writer, error))
        return false;
    count_sent(g, bytes, w->zero, w->normal, g->todo_pages);
    *w = (struct waiting){ 0 };
    return wait_for_turn(g) || ruche_error(error, RUCHE_ERR_STATE, "cancelled");
}

static bool send_page(struct migration *g, uint64_t page, struct waiting *w, GError **error)
{
    const uint8_t *from = migrate_ram_at(&g->ram, page, 1);
    bool zero = migrate_is_zero(from);
    if (!(zero && g->first)) { /* RAM that never comes is zero */
        while (!migrate_add_page(&g->writer, page, zero ? NULL : from))
            if (!flush(g, w, error))
                return false;
    }
    g->todo_pages--;
    *(zero ? &w->zero : &w->normal) += 1;
    return true;
}

bool migrate_ram_round(struct migration *g, GError **error)
{
    struct waiting w = { 0 };
    g->round_ns = g->window_ns = loop_now_ns();
    g->round_bytes = g->window_bytes = 0;
    if (!g->rate_ns)
        g->rate_ns = g->round_ns;
    for (uint64_t i = 0; i < g->todo_words; i++) {
        for (uint64_t bits = g->todo[i]; bits; bits &= bits - 1)
            if (!send_page(g, i * 64 + (unsigned)__builtin_ctzll(bits), &w, error))
                return false;
        g->todo[i] = 0;
    }
    if (!flush(g, &w, error))
        return false;
    int64_t spent = loop_now_ns() - g->round_ns;
    if (g->round_bytes > 64 * MIGRATE_PAGE && spent > 0)
        g->bandwidth = (uint64_t)((double)g->round_bytes / (double)spent * SECOND_NS);
    g->first = false;
    return true;
}

bool migrate_ram_fits(struct migration *g)
{
    uint64_t bandwidth = g->bandwidth ? g->bandwidth : BANDWIDTH_UNKNOWN, left = g->todo_pages * MIGRATE_PAGE;
    pthread_mutex_lock(&g->worker.lock);
    g->stats.remaining_bytes = left;
    g->stats.expected_downtime_ms = (uint64_t)((double)left / (double)bandwidth * 1000);
    bool fits = g->stats.expected_downtime_ms <= g->parameters.downtime_limit_ms;
    pthread_mutex_unlock(&g->worker.lock);
    return fits;
}
