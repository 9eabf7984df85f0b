/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A machine for the unit tests of devices: address spaces, a loop and a clock that stands until the
 * test moves it.
 *
 * Owner     test_machine_new() ... test_machine_free(), which frees the devices.
 * Note      testing.c stands in for machine/machine.c and accel/accel.c: it keeps what devices ask
 *           of the machine and what APICs signal to vCPUs, for the test to look at.
 */
#pragma once

#include "machine/fw_cfg.h"
#include "machine/machine.h"

#define TEST_MAX_VCPUS 64
#define TEST_GSIS 24

struct test_machine {
    struct machine m;
    struct accel accel;
    struct vcpu vcpu[TEST_MAX_VCPUS];
    struct vcpu *vcpus[TEST_MAX_VCPUS];
    unsigned signals[TEST_MAX_VCPUS][VCPU_SIGNAL_SMI + 1]; /* how often each was sent */
    uint8_t sipi_vector[TEST_MAX_VCPUS];
    uint64_t tsc_khz;
    int gsi_level[TEST_GSIS];
    unsigned gsi_rises[TEST_GSIS];
    int request;             /* last machine_request(), -1: none */
    int request_code;
    unsigned requests, events;
    const char *event;       /* last machine_event()'s name; a literal of the caller */
    uint8_t *ram;
    struct mem_region ram_region;
};

/* `vcpus` fake vCPUs; GSIs go to gsi_level[] until irqchips are made; 1 MiB of RAM at 0. */
struct test_machine *test_machine_new(unsigned vcpus);
void test_machine_free(struct test_machine *t);
/* Makes a device with NULL-ended (prop, value) pairs; a failure ends the test. Resets it, as
 * power-on does. */
struct device *test_device(struct test_machine *t, const char *type, ...) G_GNUC_NULL_TERMINATED;
/* Moves the clock, firing what is due on the way, in order of time. */
void test_advance_ns(struct test_machine *t, int64_t ns);
void test_use_vcpu(struct test_machine *t, int index); /* current_vcpu; -1: none */

static inline uint64_t test_in(struct test_machine *t, uint16_t port, unsigned size)
{
    return mem_io_read(t->m.io, port, size);
}

static inline void test_out(struct test_machine *t, uint16_t port, uint64_t val, unsigned size)
{
    mem_io_write(t->m.io, port, val, size);
}

static inline uint8_t test_inb(struct test_machine *t, uint16_t port)
{
    return (uint8_t)test_in(t, port, 1);
}

static inline void test_outb(struct test_machine *t, uint16_t port, uint8_t val)
{
    test_out(t, port, val, 1);
}

static inline uint32_t test_read32(struct test_machine *t, uint64_t addr)
{
    return (uint32_t)mem_io_read(t->m.memory, addr, 4);
}

static inline void test_write32(struct test_machine *t, uint64_t addr, uint32_t val)
{
    mem_io_write(t->m.memory, addr, val, 4);
}
