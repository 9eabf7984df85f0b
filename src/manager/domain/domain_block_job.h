/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Jobs on disks: what beginning them (domain_block_job.c) needs of their ends (domain_block_job_end.c).
 *
 * Thread    The loop thread, with the domain's lock; it waits.
 */
#pragma once

#include "manager/domain/domain_priv.h"

/* <mirror> of the job's disk in the live description, which is stored: with `copy` it is made; with
 * `ready` ("yes", "pivot", "abort") it says so; with neither it goes. A disk that is gone is fine. */
bool domain_block_mirror(struct domain *d, const struct vm_block_job *j,
                         const struct domain_block_copy *copy, const char *ready, GError **error);
