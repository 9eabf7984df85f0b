/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Inside vm_tune*.c and vm_pin.c: limits of a running machine; see vm.h's vm_set_params(),
 * vm_get_params(), vm_pin(). */
#pragma once

#include "manager/domain/vm_internal.h"

/* The rows of a group that can be set by name. All sets may wait for the monitor, gets do not. */
struct vm_tune_group {
    const char *which;
    bool (*set)(struct vm *v, const char *device, const struct param_list *l, GError **error);
    bool (*get)(struct vm *v, const char *device, struct param_list *ret, GError **error);
    bool (*start)(struct vm *v, const struct xml_node *domain,
                  GError **error); /* what the description says; may be NULL */
};
extern const struct vm_tune_group vm_tune_scheduler, vm_tune_memory, vm_tune_blkio, vm_tune_numa,
    vm_tune_blockio;

/* Threads that are neither vCPU nor I/O thread. */
unsigned vm_emulator_tids(const struct vm *v, pid_t *ret, unsigned room);
/* A new I/O thread is where <vcpu cpuset> wants all of them. */
bool vm_pin_iothread(struct vm *v, const struct xml_node *domain, unsigned id, GError **error);
bool vm_start_pins(struct vm *v, const struct xml_node *domain, GError **error);
