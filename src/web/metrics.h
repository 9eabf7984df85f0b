/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Figures for Prometheus: its text format, with the names that libvirt exporters use. */
#pragma once

#include "manager/access.h"

/* From a task; a machine that does not answer is left out of what only it knows. */
char *web_metrics(const struct caller *who, GError **error);
