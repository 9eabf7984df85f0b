/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What can go wrong with the objects of a host: codes in the RUCHE_ERROR domain, behind base's.
 *
 * The front doors map a code to their own numbers, each by one table: libvirt/errors.c to libvirt's
 * codes and domains, web/errors.c to HTTP statuses. Messages are as base/error.h says.
 */
#pragma once

#include "base/error.h"

enum manager_err {
    MANAGER_ERR_NO_DOMAIN = 100, /* "no domain with matching name 'x'" */
    MANAGER_ERR_NO_NETWORK,
    MANAGER_ERR_NO_POOL,
    MANAGER_ERR_NO_VOLUME,
    MANAGER_ERR_NO_SECRET,
    MANAGER_ERR_NO_NODE_DEVICE,
    MANAGER_ERR_NO_INTERFACE,
    MANAGER_ERR_NO_FILTER,
    MANAGER_ERR_NO_SNAPSHOT,
    MANAGER_ERR_NO_METADATA,
    MANAGER_ERR_CONFIG,         /* a value that this host or emulator cannot do */
    MANAGER_ERR_DENIED,         /* the caller may not do this */
    MANAGER_ERR_READ_ONLY,      /* the connection is read-only */
    MANAGER_ERR_AUTH,           /* who the caller is could not be shown */
    MANAGER_ERR_ARGUMENT,       /* this flag or parameter is known, but not for this call */
    MANAGER_ERR_TIMEOUT,        /* somebody did not answer in time; what is done stays done */
    MANAGER_ERR_LOCK_TIMEOUT,   /* another operation held the object too long */
    MANAGER_ERR_ABORTED,        /* cancelled by the user */
    MANAGER_ERR_AGENT,          /* the guest agent is not there or does not answer */
    MANAGER_ERR_MACHINE,        /* the machine's process refused or broke off */
    MANAGER_ERR_OVERFLOW,       /* more than the protocol's limit */
    MANAGER_ERR_UNSAFE,         /* it could destroy data; a flag says that it will not */
    MANAGER_ERR_SECRET_PRIVATE, /* a value that is never given back */
};
