/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Machines that are not there, for tests of domains: vm_*() do what a test says, and count. */
#pragma once

#include "manager/domain/vm.h"

/* What they are to do, and what was asked of them; all zeroes is a machine that works. */
struct fake {
    bool fail_start, fail_cont, fail_stream, fail_block_job, hang, gone_on_attach, no_agent,
        no_sleep, reboot_destroys;
    enum { FAKE_PLUGS_NOT, FAKE_PLUGS, FAKE_PLUGS_FAIL } plugs;
    const char *attach_state;
    const char *lost; /* an alias that is not there when the machine is found again */
    unsigned starts, kills, cleans, resets, live, signals, settles, stream_polls, forgotten, told;
    struct vm_block_job block_job;
    bool full;           /* its writes fail: it stops again before it has answered */
    bool slow_block_job; /* it does not end when it is told to */
    int migrate_fd;      /* what connections are copies of */
};
extern struct fake fake;
