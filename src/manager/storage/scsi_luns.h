/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Logical units of a SCSI host, as /sys knows them: types 'scsi' and 'iscsi' share it.
 *
 * Thread    Workers, by storage_work(). Root: NODE_SYSFS, as node/sysfs.h says.
 */
#pragma once

#include "manager/storage/backend.h"

/* Block devices of host number `host` as volumes "unit:BUS:TARGET:LUN", by their names in the target folder (such as
 * /dev/disk/by-path). Rescans the host before, if that is asked for. A disk that its driver has not taken yet is waited
 * for, once while the pool runs (pool.waited_for). */
extern unsigned scsi_luns_wait_ms; /* how long: ten seconds, other than in tests */
bool scsi_luns_scan(struct pool *p, unsigned host, bool rescan, GHashTable *found, struct pool_figures *ret, GError **error);
