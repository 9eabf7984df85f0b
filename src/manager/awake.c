/* SPDX-License-Identifier: GPL-2.0-or-later */
/* When processors stay awake, and how. See awake.h. Spec: the kernel's power/pm_qos_interface. */
#include "manager/awake.h"

#include "base/fd.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>

/* ---- when ---- */

void awake_init(struct awake *a, int64_t now_us)
{
    *a = (struct awake){.counted_us = now_us, .credit_us = AWAKE_CREDIT_US};
}

static void count(struct awake *a, int64_t now_us)
{
    int64_t passed_us = now_us - a->counted_us;
    int64_t credit_us = a->credit_us + (a->on ? -passed_us : passed_us / AWAKE_SHARE);
    a->credit_us = MIN(credit_us, AWAKE_CREDIT_US);
    a->counted_us = now_us;
}

bool awake_call(struct awake *a, int64_t think_us, int64_t now_us)
{
    if (think_us > AWAKE_THINK_US) {
        a->streak = 0;
        return a->on;
    }
    a->quick_us = now_us;
    if (a->on || ++a->streak < AWAKE_STREAK)
        return a->on;
    a->streak = 0;
    count(a, now_us);
    a->on = a->credit_us >= AWAKE_LEAST_US;
    return a->on;
}

bool awake_look(struct awake *a, int64_t now_us)
{
    if (!a->on)
        return false;
    count(a, now_us);
    a->on = now_us - a->quick_us < AWAKE_LINGER_US && a->credit_us > 0;
    a->streak = 0;
    return a->on;
}

/* ---- how ---- */

static struct {
    struct awake state;
    char *device; /* NULL: not started, or it cannot be opened */
    int fd;       /* open: the request */
    int64_t since_us;
    struct awake_figures figures;
} loop = {.fd = -1};

/* In a virtual machine whose driver is haltpoll every state but polling is left through the
 * hypervisor. Elsewhere the light states of processors are left within a few microseconds, and
 * spare their power. */
static int32_t wanted_us(void)
{
    g_autofree char *driver = NULL;
    bool halts = g_file_get_contents("/sys/devices/system/cpu/cpuidle/current_driver", &driver,
                                     NULL, NULL) &&
                 g_str_has_prefix(driver, "haltpoll");
    return halts ? 0 : 10;
}

static void begin(int64_t now_us)
{
    int32_t us = wanted_us();
    int fd = open(loop.device, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || write(fd, &us, sizeof(us)) != sizeof(us)) {
        if (log_on(LOG_TRACE))
            log_trace("awake_begin", "%s: %s", loop.device, g_strerror(errno));
        if (fd >= 0)
            close(fd);
        g_clear_pointer(&loop.device, g_free);
        return;
    }
    loop.fd = fd;
    loop.since_us = now_us;
    loop.figures.times++;
}

static void end(int64_t now_us)
{
    if (loop.fd < 0)
        return;
    close(fd_steal(&loop.fd));
    loop.figures.total_us += (uint64_t)(now_us - loop.since_us);
}

static gint awake_poll(GPollFD *fds, guint count, gint timeout_ms)
{
    if (loop.fd < 0)
        return g_poll(fds, count, timeout_ms);
    if (!awake_look(&loop.state, g_get_monotonic_time()))
        end(g_get_monotonic_time());
    else if (timeout_ms < 0 || timeout_ms > AWAKE_LINGER_US / 1000)
        timeout_ms = AWAKE_LINGER_US / 1000; /* the loop comes back, for another look */
    return g_poll(fds, count, timeout_ms);
}

void awake_called(int64_t think_us, int64_t now_us)
{
    if (loop.device && loop.fd < 0 && awake_call(&loop.state, think_us, now_us))
        begin(now_us);
    else if (loop.fd >= 0)
        awake_call(&loop.state, think_us, now_us);
}

void awake_start(const char *device)
{
    g_assert(!loop.device && loop.fd < 0);
    awake_init(&loop.state, g_get_monotonic_time());
    loop.device = g_strdup(device);
    g_main_context_set_poll_func(NULL, awake_poll);
}

void awake_stop(void)
{
    end(g_get_monotonic_time());
    g_clear_pointer(&loop.device, g_free);
    g_main_context_set_poll_func(NULL, NULL);
}

void awake_figures(struct awake_figures *ret)
{
    *ret = loop.figures;
    ret->on = loop.fd >= 0;
    if (ret->on)
        ret->total_us += (uint64_t)(g_get_monotonic_time() - loop.since_us);
}
