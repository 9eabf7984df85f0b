/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Tables: what a machine may take of its host: memory, block I/O, CPU time, NUMA nodes.
 *
 * Spec      libvirt's formatdomain, "Block I/O Tuning" to "NUMA Node Tuning", at 9.0.0.
 */
#include "manager/domain/schema_table.h"

/* clang-format off */
#define NUMA_MODES "strict|preferred|interleave|restrictive"

const struct schema_row schema_blkiotune[] = {
    { "weight", UINT_OF(10, 10000) },
    { "device", .flags = F_MANY, CHILDREN(
        { "path", PATH, .flags = F_NEED | F_TEXT },
        { "weight", UINT_OF(10, 10000) },
        { "read_iops_sec", UINT }, { "write_iops_sec", UINT },
        { "read_bytes_sec", U64 }, { "write_bytes_sec", U64 }) },
    { 0 },
};

static const struct schema_attr size_attrs[] = { { "unit", TEXT }, { 0 } };

const struct schema_row schema_memtune[] = {
    { "hard_limit", SIZE, .attrs = size_attrs, .flags = F_TEXT },
    { "soft_limit", SIZE, .attrs = size_attrs, .flags = F_TEXT },
    { "min_guarantee", SIZE, .attrs = size_attrs, .flags = F_TEXT },
    { "swap_hard_limit", SIZE, .attrs = size_attrs, .flags = F_TEXT },
    { 0 },
};

const struct schema_row schema_memory_backing[] = {
    { "hugepages", CHILDREN(
        { "page", .flags = F_MANY, ATTRS({ "size", SIZE, F_NEED }, { "unit", TEXT }, { "nodeset", CPUSET }) }) },
    { "nosharepages" },
    { "locked" },
    { "source", ATTRS({ "type", WORD("file|anonymous|memfd"), F_NEED }) },
    { "access", ATTRS({ "mode", WORD("shared|private"), F_NEED }) },
    { "allocation", .flags = F_PRUNE, ATTRS(
        { "mode", WORD("immediate|ondemand") }, { "threads", UINT_OF(1, 16384) }) },
    { "discard" },
    { 0 },
};

#define PERIOD UINT_OF(1000, 1000000)
#define QUOTA INT_OF(-1, 17592186044415)
#define ATTRS_SCHED { "scheduler", WORD("batch|idle|fifo|rr"), F_NEED }, \
    { "priority", UINT_OF(1, 99), F_NEED, .when = "scheduler=fifo|rr" }

const struct schema_row schema_cputune[] = {
    { "shares", UINT_OF(1, 262144) },
    { "period", PERIOD }, { "quota", QUOTA },
    { "global_period", PERIOD }, { "global_quota", QUOTA },
    { "emulator_period", PERIOD }, { "emulator_quota", QUOTA },
    { "iothread_period", PERIOD }, { "iothread_quota", QUOTA },
    { "vcpupin", .flags = F_MANY, ATTRS(
        { "vcpu", UINT_OF(0, 16383), F_NEED }, { "cpuset", CPUSET, F_NEED }) },
    { "emulatorpin", ATTRS({ "cpuset", CPUSET, F_NEED }) },
    { "iothreadpin", .flags = F_MANY, ATTRS(
        { "iothread", UINT_OF(1, UINT32_MAX), F_NEED }, { "cpuset", CPUSET, F_NEED }) },
    { "vcpusched", .flags = F_MANY, ATTRS({ "vcpus", CPUSET, F_NEED }, ATTRS_SCHED) },
    { "iothreadsched", .flags = F_MANY, ATTRS({ "iothreads", CPUSET, F_NEED }, ATTRS_SCHED) },
    { "emulatorsched", ATTRS(ATTRS_SCHED) },
    { "cachetune", .flags = F_MANY, ATTRS({ "vcpus", CPUSET, F_NEED }, { "id", TEXT, F_LIVE }), CHILDREN(
        { "cache", .flags = F_MANY, ATTRS(
            { "id", UINT, F_NEED }, { "level", UINT_OF(1, 3), F_NEED },
            { "type", WORD("both|code|data"), F_NEED }, { "size", SIZE, F_NEED }, { "unit", TEXT }) },
        { "monitor", .flags = F_MANY, ATTRS({ "level", UINT_OF(1, 3), F_NEED }, { "vcpus", CPUSET, F_NEED }) }) },
    { "memorytune", .flags = F_MANY, ATTRS({ "vcpus", CPUSET, F_NEED }), CHILDREN(
        { "node", .flags = F_MANY, ATTRS({ "id", UINT, F_NEED }, { "bandwidth", UINT, F_NEED }) },
        { "monitor", .flags = F_MANY, ATTRS({ "vcpus", CPUSET, F_NEED }) }) },
    { 0 },
};

const struct schema_row schema_numatune[] = {
    { "memory", ATTRS(
        { "mode", WORD(NUMA_MODES), .otherwise = "strict" }, { "nodeset", CPUSET },
        { "placement", WORD("static|auto") }) },
    { "memnode", .flags = F_MANY, ATTRS(
        { "cellid", UINT, F_NEED }, { "mode", WORD(NUMA_MODES), F_NEED }, { "nodeset", CPUSET, F_NEED }) },
    { 0 },
};
