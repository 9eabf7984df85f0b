/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Throttling: each limit is a leaky bucket. A request may go while no bucket is over-full; it then
 * adds its units, and the next one waits for the surplus to leak away. So a request larger than the
 * bucket goes too, and pays afterwards.
 *
 * Thread    The lock of the group guards buckets, counts and turns; a member's queues belong to its
 *           home thread. Only one request of a group and direction waits on a timer: its member has
 *           the turn.
 * Order     First come, first served within a member; members take turns.
 */
#include "image/throttle.h"

#include "base/error.h"

#include <pthread.h>
#include <string.h>

struct bucket {
    double level; /* units that have not leaked yet */
    double burst; /* the same, leaking at the burst's rate: keeps bursts to that rate */
};

struct throttle_group {
    char *name;    /* NULL: of one member, not in the table */
    unsigned refs; /* guarded by groups_lock */
    pthread_mutex_t lock;
    struct throttle_limits limits;
    _Atomic bool limited; /* read without the lock */
    struct bucket bucket[THROTTLE_KINDS];
    int64_t leaked_ns; /* until when the buckets have leaked */
    struct throttle_member *members;
    struct throttle_member
        *turn[2];        /* whose timer is armed; NULL: nobody waits, or one is on its way */
    unsigned waiting[2]; /* requests of all members */
};

static pthread_mutex_t groups_lock = PTHREAD_MUTEX_INITIALIZER;
static GHashTable *groups; /* name to group, borrowed */

static const char *const kind_names[THROTTLE_KINDS] = {
    [THROTTLE_BPS_TOTAL] = "bps-total", [THROTTLE_BPS_READ] = "bps-read",
    [THROTTLE_BPS_WRITE] = "bps-write", [THROTTLE_OPS_TOTAL] = "iops-total",
    [THROTTLE_OPS_READ] = "iops-read",  [THROTTLE_OPS_WRITE] = "iops-write",
};

/* ---- limits ---- */

static bool check_one(const struct throttle_limits *l, enum throttle_kind k, GError **error)
{
    const char *name = kind_names[k];
    uint64_t avg = l->of[k].avg, max = l->of[k].max, length = l->of[k].length;
    if (avg > THROTTLE_VALUE_MAX || max > THROTTLE_VALUE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID, "throttling: %s is above the limit of %llu",
                           name, THROTTLE_VALUE_MAX);
    if (max && !avg)
        return ruche_error(error, RUCHE_ERR_INVALID, "throttling: %s has a burst rate but no rate",
                           name);
    if (max && max < avg)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "throttling: the burst rate of %s, %" G_GUINT64_FORMAT
                           ", is below its rate, %" G_GUINT64_FORMAT,
                           name, max, avg);
    if (length > 1 && !max)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "throttling: %s has a burst length but no burst rate", name);
    if (max && !length)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "throttling: the burst length of %s is 0; the least is 1", name);
    if (max && max > THROTTLE_VALUE_MAX / length)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "throttling: a burst of %s for %" G_GUINT64_FORMAT
                           " seconds is above the limit of %llu",
                           name, length, THROTTLE_VALUE_MAX);
    return true;
}

static bool is_set(const struct throttle_limits *l, enum throttle_kind k)
{
    return l->of[k].avg || l->of[k].max;
}

bool throttle_check(const struct throttle_limits *l, GError **error)
{
    static const enum throttle_kind totals[] = {THROTTLE_BPS_TOTAL, THROTTLE_OPS_TOTAL};
    for (size_t i = 0; i < ARRAY_COUNT(totals); i++) {
        enum throttle_kind total = totals[i];
        if (is_set(l, total) && (is_set(l, total + 1) || is_set(l, total + 2)))
            return ruche_error(
                error, RUCHE_ERR_INVALID,
                "throttling: %s excludes limits of reads and of writes of the same unit",
                kind_names[total]);
    }
    for (enum throttle_kind k = 0; k < THROTTLE_KINDS; k++)
        if (!check_one(l, k, error))
            return false;
    if (l->op_size > THROTTLE_VALUE_MAX)
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "throttling: iops-size is above the limit of %llu", THROTTLE_VALUE_MAX);
    if (l->op_size && !is_set(l, THROTTLE_OPS_TOTAL) && !is_set(l, THROTTLE_OPS_READ) &&
        !is_set(l, THROTTLE_OPS_WRITE))
        return ruche_error(error, RUCHE_ERR_INVALID,
                           "throttling: iops-size needs a limit of operations");
    return true;
}

bool throttle_is_limited(const struct throttle_limits *l)
{
    for (enum throttle_kind k = 0; k < THROTTLE_KINDS; k++)
        if (l->of[k].avg)
            return true;
    return false;
}

/* ---- buckets; with the lock ---- */

/* What counts for a read or a write. */
static const enum throttle_kind kinds_of[2][4] = {
    {THROTTLE_BPS_TOTAL, THROTTLE_BPS_READ, THROTTLE_OPS_TOTAL, THROTTLE_OPS_READ},
    {THROTTLE_BPS_TOTAL, THROTTLE_BPS_WRITE, THROTTLE_OPS_TOTAL, THROTTLE_OPS_WRITE},
};

static void leak(struct throttle_group *g, int64_t now_ns)
{
    double seconds = (double)(now_ns - g->leaked_ns) / NS_PER_SEC;
    if (seconds <= 0)
        return;
    g->leaked_ns = now_ns;
    for (enum throttle_kind k = 0; k < THROTTLE_KINDS; k++) {
        struct bucket *b = &g->bucket[k];
        b->level = MAX(b->level - (double)g->limits.of[k].avg * seconds, 0);
        b->burst = MAX(b->burst - (double)g->limits.of[k].max * seconds, 0);
    }
}

/* Seconds until the bucket is no longer over-full. */
static double bucket_delay(const struct throttle_group *g, enum throttle_kind k)
{
    double avg = g->limits.of[k].avg, max = g->limits.of[k].max, length = g->limits.of[k].length;
    const struct bucket *b = &g->bucket[k];
    if (!g->limits.of[k].avg)
        return 0;
    double surplus = b->level - (g->limits.of[k].max ? max * length : avg / 10);
    if (surplus > 0)
        return surplus / avg;
    surplus = b->burst - max / 10;
    return g->limits.of[k].length > 1 && surplus > 0 ? surplus / max : 0;
}

static int64_t delay_ns(struct throttle_group *g, bool write)
{
    double seconds = 0;
    leak(g, loop_now_ns());
    for (size_t i = 0; i < ARRAY_COUNT(kinds_of[0]); i++)
        seconds = MAX(seconds, bucket_delay(g, kinds_of[write][i]));
    return (int64_t)(seconds * NS_PER_SEC);
}

static void account(struct throttle_group *g, bool write, uint64_t bytes)
{
    uint64_t op_size = g->limits.op_size;
    double ops = op_size && bytes > op_size ? (double)bytes / (double)op_size : 1;
    for (size_t i = 0; i < ARRAY_COUNT(kinds_of[0]); i++) {
        enum throttle_kind k = kinds_of[write][i];
        double units = k < THROTTLE_OPS_TOTAL ? (double)bytes : ops;
        if (!g->limits.of[k].avg)
            continue;
        g->bucket[k].level += units;
        if (g->limits.of[k].length > 1)
            g->bucket[k].burst += units;
    }
}

/* ---- turns ---- */

/* Gives the turn to the next member after m that has a request waiting. With the lock. */
static void pass_turn(struct throttle_member *m, bool write)
{
    struct throttle_group *g = m->group;
    if (g->turn[write] || !g->waiting[write])
        return;
    struct throttle_member *next = m;
    do {
        next = next->next ? next->next : g->members;
    } while (!next->pending[write] && next != m);
    if (!next->pending[write])
        return;
    g->turn[write] = next;
    loop_timer_arm(&next->timer[write], loop_now_ns() + delay_ns(g, write));
}

static void timer_fired(struct throttle_member *m, bool write)
{
    struct throttle_group *g = m->group;
    pthread_mutex_lock(&g->lock);
    int64_t delay = m->open ? 0 : delay_ns(g, write);
    if (delay > 0)
        loop_timer_arm(&m->timer[write], loop_now_ns() + delay);
    else if (g->turn[write] == m)
        g->turn[write] = NULL;
    pthread_mutex_unlock(&g->lock);
    if (delay > 0 || fiber_queue_wake_one(&m->waiting[write]))
        return;
    pthread_mutex_lock(&g->lock);
    pass_turn(m, write);
    pthread_mutex_unlock(&g->lock);
}

static void read_timer(void *opaque)
{
    timer_fired(opaque, false);
}

static void write_timer(void *opaque)
{
    timer_fired(opaque, true);
}

void throttle_pass(struct throttle_member *m, bool write, uint64_t bytes)
{
    struct throttle_group *g = m->group;
    if (!g->limited && !m->pending[write])
        return;
    pthread_mutex_lock(&g->lock);
    if (!m->open && (m->pending[write] || g->waiting[write] || delay_ns(g, write) > 0)) {
        m->pending[write]++;
        g->waiting[write]++;
        pass_turn(m, write);
        pthread_mutex_unlock(&g->lock);
        fiber_queue_wait(&m->waiting[write]);
        pthread_mutex_lock(&g->lock);
        m->pending[write]--;
        g->waiting[write]--;
    }
    account(g, write, bytes);
    pass_turn(m, write);
    pthread_mutex_unlock(&g->lock);
}

void throttle_open(struct throttle_member *m, bool open)
{
    pthread_mutex_lock(&m->group->lock);
    m->open = open;
    pthread_mutex_unlock(&m->group->lock);
    if (!open)
        return;
    fiber_queue_wake_all(&m->waiting[0]);
    fiber_queue_wake_all(&m->waiting[1]);
}

/* ---- members ---- */

static void init_timers(struct throttle_member *m, struct context *c)
{
    m->ctx = c;
    loop_timer_init(context_loop(c), &m->timer[0], read_timer, m);
    loop_timer_init(context_loop(c), &m->timer[1], write_timer, m);
}

/* The timers go, and with them the turns. With the lock. */
static void drop_timers(struct throttle_member *m)
{
    for (int write = 0; write < 2; write++) {
        loop_timer_done(&m->timer[write]);
        if (m->group->turn[write] != m)
            continue;
        m->group->turn[write] = NULL;
        pass_turn(m, write);
    }
}

void throttle_join(struct throttle_member *m, struct throttle_group *g, struct context *c)
{
    *m = (struct throttle_member){.group = g};
    init_timers(m, c);
    pthread_mutex_lock(&groups_lock);
    g->refs++;
    pthread_mutex_unlock(&groups_lock);
    pthread_mutex_lock(&g->lock);
    m->next = g->members;
    g->members = m;
    pthread_mutex_unlock(&g->lock);
}

void throttle_leave(struct throttle_member *m)
{
    struct throttle_group *g = m->group;
    if (!g)
        return;
    pthread_mutex_lock(&g->lock);
    drop_timers(m);
    for (struct throttle_member **p = &g->members; *p; p = &(*p)->next)
        if (*p == m) {
            *p = m->next;
            break;
        }
    pthread_mutex_unlock(&g->lock);
    m->group = NULL;
    throttle_group_put(g);
}

void throttle_move(struct throttle_member *m, struct context *c)
{
    pthread_mutex_lock(&m->group->lock);
    drop_timers(m);
    init_timers(m, c);
    pthread_mutex_unlock(&m->group->lock);
}

/* ---- groups ---- */

struct throttle_group *throttle_group_get(const char *name)
{
    pthread_mutex_lock(&groups_lock);
    if (!groups)
        groups = g_hash_table_new(g_str_hash, g_str_equal);
    struct throttle_group *g = name ? g_hash_table_lookup(groups, name) : NULL;
    if (!g) {
        g = g_new0(struct throttle_group, 1);
        pthread_mutex_init(&g->lock, NULL);
        g->name = g_strdup(name);
        g->leaked_ns = loop_now_ns();
        if (name)
            g_hash_table_insert(groups, g->name, g);
    }
    g->refs++;
    pthread_mutex_unlock(&groups_lock);
    return g;
}

struct throttle_group *throttle_group_find(const char *name)
{
    pthread_mutex_lock(&groups_lock);
    struct throttle_group *g = groups ? g_hash_table_lookup(groups, name) : NULL;
    if (g)
        g->refs++;
    pthread_mutex_unlock(&groups_lock);
    return g;
}

void throttle_group_put(struct throttle_group *g)
{
    if (!g)
        return;
    pthread_mutex_lock(&groups_lock);
    bool last = --g->refs == 0;
    if (last && g->name)
        g_hash_table_remove(groups, g->name);
    pthread_mutex_unlock(&groups_lock);
    if (!last)
        return;
    pthread_mutex_destroy(&g->lock);
    g_free(g->name);
    g_free(g);
}

const char *throttle_group_name(const struct throttle_group *g)
{
    return g->name;
}

void throttle_group_set(struct throttle_group *g, const struct throttle_limits *l)
{
    pthread_mutex_lock(&g->lock);
    g->limits = *l;
    g->limited = throttle_is_limited(l);
    g->leaked_ns = loop_now_ns();
    memset(g->bucket, 0, sizeof(g->bucket));
    for (int write = 0; write < 2;
         write++) /* who waits does so no longer than the new limits ask */
        if (g->turn[write])
            loop_timer_arm(&g->turn[write]->timer[write], g->leaked_ns);
    pthread_mutex_unlock(&g->lock);
}

void throttle_group_limits(struct throttle_group *g, struct throttle_limits *ret)
{
    pthread_mutex_lock(&g->lock);
    *ret = g->limits;
    pthread_mutex_unlock(&g->lock);
}
