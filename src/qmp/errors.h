/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Error domains that stand for QEMU's error classes; all other errors are GenericError, but for
 * RUCHE_ERR_NOT_FOUND, which is DeviceNotFound.
 */
#pragma once

#include <glib.h>

#define QMP_COMMAND_NOT_FOUND g_quark_from_static_string("qmp-command-not-found")
#define QMP_DEVICE_NOT_ACTIVE g_quark_from_static_string("qmp-device-not-active")
